"""The inputs that a network is tried on: the example inputs, and random ones of their kind."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from amsc.borrowing import InputSpec, random_inputs

__all__ = ["EXAMPLE", "SEED", "doubled", "trial_inputs"]

EXAMPLE = "the example inputs"
SEED = 20


def trial_inputs(model: nn.Module, spec: InputSpec, example_inputs: Any, num_random: int) -> Iterator[tuple[str, Any]]:
    """(what they are, inputs): the example inputs, if given, and `num_random` batches of random ones like them, or
    else like `spec`, from a fixed seed."""
    if example_inputs is not None:
        yield EXAMPLE, example_inputs
        spec = InputSpec.of(example_inputs)
    tensors = [*model.parameters(), *model.buffers()]
    device = tensors[0].device if tensors else torch.device("cpu")
    generator = torch.Generator().manual_seed(SEED)
    is_double = any(tensor.dtype == torch.float64 for tensor in tensors)
    for number in range(1, num_random + 1):
        inputs = random_inputs(spec, device, generator)
        yield f"random inputs {number}", doubled(inputs) if is_double else inputs


def doubled(inputs: Any) -> Any:
    """The inputs with float64 in place of other floating types."""
    return pytree.tree_map_only(Tensor, lambda t: t.double() if t.is_floating_point() else t, inputs)
