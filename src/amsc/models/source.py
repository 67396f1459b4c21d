"""From what a user writes for MODEL to a network."""

from pathlib import Path

from torch import nn

from amsc.errors import ModelError
from amsc.models.from_libraries import build_from, library_of
from amsc.models.function import call_function
from amsc.models.weights import load_weights
from amsc.models.zoo import ZOO
from amsc.words.nearest import nearest

__all__ = ["is_function", "open_model"]

_SUPPORTED = f"one of {', '.join(ZOO)}, torchvision:NAME, timm:NAME, hf:NAME, or package.module:function"


def open_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    weights: str | Path | None = None,
) -> nn.Module:
    """The network called `name`, with the weights in the file `weights` if one is given, else initialised at random.

    `name` is a name of the zoo; `torchvision:NAME`; `timm:NAME`, or `timm:NAME?pretrained` with its trained weights;
    `hf:FOLDER` or `hf:NAME`, what transformers saved there or has on the Hugging Face hub; or
    `package.module:function`, a function without arguments that returns the network. `num_classes` and `in_channels`
    replace the defaults of the zoo, torchvision and timm; what a function returns stays as it is, and so does what
    transformers loads with weights.

    Raises:
        ModelError: no such network, or the weights do not fit.
    """
    for value, what in ((num_classes, "num_classes"), (in_channels, "in_channels")):
        if value is not None and value < 1:
            raise ModelError(f"{what} must be at least 1, not {value}")
    model = _build(name, num_classes, in_channels)
    if weights is not None:
        load_weights(model, weights)
    return model


def is_function(name: str) -> bool:
    """Whether this names a function of the user's, and no network that amsc or another library has."""
    return ":" in name and library_of(name) is None


def _build(name: str, num_classes: int | None, in_channels: int | None) -> nn.Module:
    if name in ZOO:
        entry = ZOO[name]
        return entry.build(num_classes or entry.num_classes, in_channels or entry.in_channels)
    if library_of(name) is not None:
        return build_from(name, num_classes, in_channels)
    if not is_function(name):
        raise ModelError(f"there is no model {name!r}, expected {_SUPPORTED}{nearest(name, ZOO)}")
    model = call_function(name, ModelError)
    if not isinstance(model, nn.Module):
        raise ModelError(f"{name}() returned {type(model).__name__}, expected a torch.nn.Module")
    return model
