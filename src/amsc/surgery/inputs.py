"""The inputs that a network is tried on: the example inputs, and random ones of their kind."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from amsc.borrowing import InputSpec, example_calls, map_tensors, random_inputs

__all__ = ["EXAMPLE", "SEED", "doubled", "smaller", "trial_inputs"]

EXAMPLE = "the example inputs"
SEED = 20
# An image is made smaller to this share of its height and width, in whole numbers of what networks divide them by.
SHARE, DIVISOR, LEAST = 4, 32, 64


def trial_inputs(model: nn.Module, spec: InputSpec, example_inputs: Any, num_random: int) -> Iterator[tuple[str, Any]]:
    """(what they are, inputs): each call of the example inputs, if given, and `num_random` batches of random ones like
    it, or else like those of `spec`, from a fixed seed. What the example inputs are begins with `EXAMPLE`."""
    if example_inputs is not None:
        calls = example_calls(example_inputs)
        yield from ((_labelled(EXAMPLE, number, len(calls)), call) for number, call in enumerate(calls, 1))
        spec = InputSpec.of(example_inputs)
    tensors = [*model.parameters(), *model.buffers()]
    device = tensors[0].device if tensors else torch.device("cpu")
    generator = torch.Generator().manual_seed(SEED)
    is_double = any(tensor.dtype == torch.float64 for tensor in tensors)
    for number in range(1, num_random + 1):
        for place, call in enumerate(spec.calls, 1):
            inputs = random_inputs(call, device, generator)
            label = _labelled(f"random inputs {number}", place, len(spec.calls))
            yield label, doubled(inputs) if is_double else inputs


def _labelled(what: str, number: int, num_calls: int) -> str:
    return f"{what} of call {number}" if num_calls > 1 else what


def doubled(inputs: Any) -> Any:
    """The inputs with float64 in place of other floating types."""
    return map_tensors(lambda t: t.double() if t.is_floating_point() else t, inputs)


def smaller(inputs: Any) -> Any:
    """The inputs with a corner of each image or video in its place, 64 pixels high and wide or more."""
    return map_tensors(_corner, inputs)


def _corner(images: Tensor) -> Tensor:
    if images.ndim < 4 or not images.is_floating_point():
        return images
    for axis in (-2, -1):
        size = max(LEAST, math.ceil(images.shape[axis] / SHARE / DIVISOR) * DIVISOR)
        images = images.narrow(axis, 0, min(size, images.shape[axis]))
    return images.clone()
