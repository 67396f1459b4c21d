"""From what a user writes for MODEL to a network."""

import difflib
from pathlib import Path

from torch import nn

from amsc.errors import ModelError
from amsc.models.function import call_function
from amsc.models.weights import load_weights
from amsc.models.zoo import ZOO

__all__ = ["is_function", "open_model"]

_SUPPORTED = f"one of {', '.join(ZOO)}, torchvision:NAME, or package.module:function"


def open_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    weights: str | Path | None = None,
) -> nn.Module:
    """The network called `name`, with the weights in the file `weights` if one is given, else initialised at random.

    `name` is a name of the zoo, `torchvision:NAME`, or `package.module:function`, a function without arguments that
    returns the network. `num_classes` and `in_channels` replace the zoo's and torchvision's defaults; what a function
    returns stays as it is.

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
    """Whether this names a function of the user's, and no network that amsc or torchvision has."""
    return ":" in name and not name.startswith("torchvision:")


def _build(name: str, num_classes: int | None, in_channels: int | None) -> nn.Module:
    if name in ZOO:
        entry = ZOO[name]
        return entry.build(num_classes or entry.num_classes, in_channels or entry.in_channels)
    if name.startswith("torchvision:"):
        return _from_torchvision(name.removeprefix("torchvision:"), num_classes, in_channels)
    if not is_function(name):
        near = difflib.get_close_matches(name.lower(), ZOO, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ModelError(f"there is no model {name!r}; {hint}expected {_SUPPORTED}")
    if name.startswith(("timm:", "hf:")):
        raise ModelError(
            f"{name.partition(':')[0]}: is not supported; write a function without arguments that builds the model"
            " and name it as package.module:function"
        )
    model = call_function(name, ModelError)
    if not isinstance(model, nn.Module):
        raise ModelError(f"{name}() returned {type(model).__name__}, expected a torch.nn.Module")
    return model


def _from_torchvision(name: str, num_classes: int | None, in_channels: int | None) -> nn.Module:
    try:
        from torchvision import models
    except ImportError as error:
        raise ModelError(f"torchvision:{name} needs the package torchvision; install it with pip") from error
    if in_channels not in (None, 3):
        raise ModelError(f"torchvision:{name} takes images of 3 channels, the data have {in_channels}")
    available = models.list_models()
    if name not in available:
        near = difflib.get_close_matches(name.lower(), available, n=1)
        raise ModelError(f"torchvision has no model {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    model: nn.Module = models.get_model(name, **({} if num_classes is None else {"num_classes": num_classes}))
    return model
