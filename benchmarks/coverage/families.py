"""The networks of the coverage benchmark: name -> tiny random network and its inputs, without any download.

    model, inputs = build("hf/llama")          # "hf/..." from transformers, "timm/..." from timm
    others = inputs_of("hf/llama", seed=1)     # other inputs of the same specification

The tables are in text.py, vision.py, mixed.py and timm_variants.py. Weights are drawn so
that an error in a cut shows: no parameter is left constant (fresh networks have zero biases, unit scales and layer
scales of 1e-6, which would hide one), and none is so small that a layer hardly changes its input.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from mixed import MIXED
from text import TEXT
from timm_variants import TIMM
from torch import Tensor, nn
from vision import VISION

Inputs = dict[str, Any] | tuple[Any, ...]
BATCH, LENGTH, TARGET_LENGTH = 2, 7, 5
LOWEST_ID, HIGHEST_ID = 3, 50  # of tokens; the first three are padding, begin and end


class Family(NamedTuple):
    """A class of transformers, the differences from its default config, and what it is called with."""

    model: str
    config: dict[str, Any]
    inputs: str = f"text:{LENGTH}"


FAMILIES: dict[str, Family] = {name: Family(*row) for name, row in {**TEXT, **VISION, **MIXED}.items()}
NAMES = (*(f"hf/{name}" for name in FAMILIES), *(f"timm/{name}" for name in TIMM))


def build(name: str, *, attention: str | None = None) -> tuple[nn.Module, Inputs]:
    """The network `name` in eval mode with random weights, and example inputs; the same at every call.

    `attention`: "eager" or "sdpa" for transformers, by default what the library takes."""
    torch.manual_seed(0)
    source, _, family = name.partition("/")
    model = _transformer(FAMILIES[family], attention) if source == "hf" else _timm(family)
    _randomise(model)
    return model.eval(), inputs_of(name, seed=0)


def inputs_of(name: str, *, seed: int) -> Inputs:
    """Inputs for the network `name`, drawn from `seed`."""
    source, _, family = name.partition("/")
    text = FAMILIES[family].inputs if source == "hf" else f"image:{TIMM[family][1]}"
    kind, _, sizes = text.partition(":")
    draw = _Draw(torch.Generator().manual_seed(seed))
    inputs = _INPUTS[kind](draw, *(int(size) for size in sizes.split("x") if size))
    return (inputs["pixel_values"],) if source == "timm" else inputs


def _transformer(family: Family, attention: str | None) -> nn.Module:
    import transformers

    kind = getattr(transformers, family.model)
    config = kind.config_class(**family.config)
    options = {} if attention is None else {"attn_implementation": attention}
    model: nn.Module = kind._from_config(config, **options)
    return model


def _timm(name: str) -> nn.Module:
    import timm

    model: nn.Module = timm.create_model(name, pretrained=False, **TIMM[name][0])
    return model


def declare_torchvision() -> torch.library.Library:
    """Schemas of two compiled operators that `import torchvision` asks for where its binary part is missing; keep the
    value while they are needed."""
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


@torch.no_grad()
def _randomise(model: nn.Module) -> None:
    """Noise of 0.2 on vectors (scales and biases) and on constant tensors, weights of gain about 1, statistics."""
    for parameter in model.parameters():
        if not parameter.is_floating_point() or parameter.numel() == 0:
            continue
        fan_in = max(1, math.prod(parameter.shape[1:]))
        if parameter.ndim < 2 or bool((parameter == parameter.flatten()[0]).all()):
            parameter.add_(0.2 * torch.randn_like(parameter))
        elif float(parameter.std()) * math.sqrt(fan_in) < 0.5:
            parameter.normal_(0, 1 / math.sqrt(fan_in))
    for module in model.modules():
        for buffer_name, low, high in (("running_mean", -0.4, 0.4), ("running_var", 0.5, 1.5)):
            buffer = getattr(module, buffer_name, None)
            if isinstance(buffer, Tensor):
                buffer.uniform_(low, high)


class _Draw(NamedTuple):
    """Random tensors from one generator."""

    generator: torch.Generator

    def ids(self, *shape: int, high: int = HIGHEST_ID) -> Tensor:
        return torch.randint(LOWEST_ID, high, shape, generator=self.generator)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)


def _text(draw: _Draw, length: int = LENGTH) -> Inputs:
    return {"input_ids": draw.ids(BATCH, length)}


def _image(draw: _Draw, size: int) -> Inputs:
    return {"pixel_values": draw.normal(BATCH, 3, size, size)}


def _image_text(draw: _Draw, size: int) -> Inputs:
    return {**_text(draw), **_image(draw, size)}


def _decoder(draw: _Draw) -> dict[str, Tensor]:
    return {"decoder_input_ids": draw.ids(BATCH, TARGET_LENGTH)}


_INPUTS: dict[str, Callable[..., Inputs]] = {
    "text": _text,
    "image": _image,
    "image-text": _image_text,
    "layout": lambda draw: {**_text(draw), "bbox": draw.ids(BATCH, LENGTH, 1, high=20).expand(-1, -1, 4).clone()},
    "perceiver": lambda draw: {"inputs": draw.ids(BATCH, LENGTH)},
    "seq2seq": lambda draw: {**_text(draw), **_decoder(draw)},
    "mae": lambda draw: {**_image(draw, 32), "noise": draw.normal(BATCH, 16)},
    "video": lambda draw, frames, size: {"pixel_values": draw.normal(BATCH, frames, 3, size, size)},
    "mel": lambda draw, *shape: {"input_features": draw.normal(BATCH, *shape)},
    "ast": lambda draw, *shape: {"input_values": draw.normal(BATCH, *shape)},
    "speech": lambda draw, *shape: {"input_features": draw.normal(BATCH, *shape), **_decoder(draw)},
    "wave": lambda draw, length: {"input_values": draw.normal(BATCH, length)},
    "seq2seq-wave": lambda draw, length: {"input_values": draw.normal(BATCH, length), **_decoder(draw)},
    "moonshine": lambda draw: {"input_values": draw.normal(BATCH, 1600), **_decoder(draw)},
    "encodec": lambda draw: {"input_values": draw.normal(BATCH, 1, 64)},
    "lxmert": lambda draw: {
        **_text(draw),
        "visual_feats": draw.normal(BATCH, 6, 22),
        "visual_pos": draw.normal(BATCH, 6, 4),
    },
    "series": lambda draw, *shape: {"past_values": draw.normal(BATCH, *shape)},
    "decision": lambda draw: {
        "states": draw.normal(BATCH, LENGTH, 9),
        "actions": draw.normal(BATCH, LENGTH, 4),
        "rewards": draw.normal(BATCH, LENGTH, 1),
        "returns_to_go": draw.normal(BATCH, LENGTH, 1),
        "timesteps": draw.ids(BATCH, LENGTH, high=29),
    },
    "forecast": lambda draw: {
        "past_values": draw.normal(BATCH, 15),
        "past_time_features": draw.normal(BATCH, 15, 2),
        "past_observed_mask": torch.ones(BATCH, 15),
        "future_values": draw.normal(BATCH, 6),
        "future_time_features": draw.normal(BATCH, 6, 2),
    },
}
