"""What a network takes, where it says so itself: example inputs without any data."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from amsc.errors import ModelError
from amsc.models.from_libraries import library_of
from amsc.models.zoo import ZOO

__all__ = ["usual_inputs"]

TOKENS = 32
"""Length of an example text, or less where the network takes less."""
IMAGE = 224


def usual_inputs(
    model: nn.Module, name: str, generator: torch.Generator, *, in_channels: int | None = None
) -> Tensor | dict[str, Tensor]:
    """One example of what the network called `name` was made for, drawn from `generator` (on the CPU).

    Built-in networks and those of torchvision and timm take an image; a model of transformers takes what its config
    says: tokens with their mask, or an image.

    Raises:
        ModelError: it does not say.
    """
    if name in ZOO:
        entry = ZOO[name]
        size = entry.image_size
        return torch.randn(1, in_channels or entry.in_channels, size, size, generator=generator)
    if (main := getattr(model, "main_input_name", None)) and hasattr(model, "config"):
        return _of_transformers(model, str(main), generator, name)
    if library_of(name) == "timm":
        return torch.randn(1, *_timm_size(model), generator=generator)
    if library_of(name) == "torchvision":
        return torch.randn(1, 3, IMAGE, IMAGE, generator=generator)
    raise ModelError(f"what {name} takes is not known: give --input-shape, such as 1,3,224,224, or --data")


def _timm_size(model: nn.Module) -> tuple[int, int, int]:
    """Channels, height and width: those of the pretrained weights, but the channels of this very network."""
    stated = getattr(model, "pretrained_cfg", {})
    _, height, width = stated.get("input_size", (3, IMAGE, IMAGE))
    first = next(parameter for parameter in model.parameters() if parameter.ndim == 4)
    return getattr(model, "in_chans", first.shape[1]), height, width


def _of_transformers(model: Any, main: str, generator: torch.Generator, name: str) -> dict[str, Tensor]:
    config = model.config
    if main == "pixel_values":
        vision = _part(config, "vision_config", "image_size")
        sizes = getattr(vision, "image_size", None) or IMAGE
        height, width = (sizes, sizes) if isinstance(sizes, int) else sizes
        channels = getattr(vision, "num_channels", 3)
        return {main: torch.randn(1, channels, height, width, generator=generator)}
    if main != "input_ids":
        raise ModelError(
            f"what {name} takes as {main} is not known; give --data, or in Python example inputs: "
            f"amsc.trace(model, {{{main!r}: ...}})"
        )
    text = _part(config, "text_config", "vocab_size")
    length = min(TOKENS, getattr(text, "max_position_embeddings", None) or TOKENS)
    ids = torch.randint(0, text.vocab_size, (1, length), generator=generator)
    inputs = {main: ids, "attention_mask": torch.ones_like(ids), "decoder_input_ids": ids[:, : length // 2].clone()}
    taken = inspect.signature(model.forward).parameters
    if not getattr(config, "is_encoder_decoder", False):
        del inputs["decoder_input_ids"]
    return {key: value for key, value in inputs.items() if key in taken}


def _part(config: Any, part: str, key: str) -> Any:
    """The config that has this key: itself, or the part of one that is made of several."""
    inner = getattr(config, part, None)
    return config if hasattr(config, key) or inner is None else inner
