"""What every export shares: batches of several sizes to compare on, and the comparison."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from amsc.borrowing import InputSpec, TensorSpec, call_arguments, in_double, look_into, random_inputs, run_model
from amsc.errors import InputError, VerificationError

__all__ = ["Exported", "batch_size", "batched", "brief", "check_parity", "output_tensors"]

SEED = 20
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4}
"""Other runtimes order sums and fuse operators their own way: ten times what `verify` allows within PyTorch."""
LOW_PRECISION_TOLERANCE = 2e-2
BATCHES = (1, 2, 5)
"""Batch sizes on which a file with a free batch axis is compared."""
LONGEST = 300
"""Characters of another program's error that are repeated."""

Runner = Callable[[tuple[Any, ...], Mapping[str, Any]], list[Tensor]]


@dataclass(frozen=True)
class Exported:
    """A file that has been written: its `format` ("onnx" or "pt2"), size, and the largest relative difference to the
    model that was found; `dynamic_batch`: it takes batches of any size."""

    path: str
    format: str
    bytes: int
    error: float
    dynamic_batch: bool


def batched(example_inputs: Any, batch: int | None) -> Any:
    """Random inputs like the example (of several calls the first), `batch` of them (as many as in it if None).

    The batch is the first axis of the first tensor, and of all others that have the same size there.

    Raises:
        InputError: the first tensor has no axis.
    """
    spec = InputSpec.of(example_inputs)
    size = batch_size(example_inputs)
    leaves = spec.leaves if batch is None else tuple(_resized(leaf, size, batch) for leaf in spec.leaves)
    device = next(
        leaf.device for leaf in pytree.tree_leaves(call_arguments(example_inputs)) if isinstance(leaf, Tensor)
    )
    return random_inputs(InputSpec(leaves, spec.layout), device, torch.Generator().manual_seed(SEED))


def batch_size(example_inputs: Any) -> int:
    """The size of the first axis of the first tensor.

    Raises:
        InputError: it has none.
    """
    first = next(leaf for leaf in pytree.tree_leaves(call_arguments(example_inputs)) if isinstance(leaf, Tensor))
    if first.ndim == 0:
        raise InputError("the first tensor of example_inputs has no axis; its first axis must be the batch")
    return int(first.shape[0])


def _resized(leaf: TensorSpec, size: int, batch: int) -> TensorSpec:
    if not leaf.shape or leaf.shape[0] != size:
        return leaf
    return TensorSpec((batch, *leaf.shape[1:]), leaf.dtype, leaf.low, leaf.high, leaf.constant)


def check_parity(model: nn.Module, run: Runner, example_inputs: Any, *, dynamic_batch: bool) -> float:
    """The largest relative difference (max|a - b| / max|a|, per output) between the model and the exported file.

    Compared on the example inputs and on random ones, with `dynamic_batch` in several batch sizes. The model must be
    in eval mode.

    Raises:
        VerificationError: they differ by more than the tolerance, or the file fails.
    """
    trials = [("the example inputs", example_inputs)]
    for batch in BATCHES if dynamic_batch else (None,):
        trials.append((f"random inputs, batch {batch or 'as given'}", batched(example_inputs, batch)))
    worst = 0.0
    for label, inputs in trials:
        expected = output_tensors(run_model(model, inputs))
        args, kwargs = call_arguments(inputs)
        try:
            actual = run(args, kwargs)
        except Exception as error:  # whatever the other runtime raises
            raise VerificationError(f"the exported file fails on {label}: {brief(error)}") from error
        worst = max(worst, _worst(expected, actual, label, _tolerance(model, expected)))
    return worst


def output_tensors(output: Any) -> list[Tensor]:
    """The tensors of an output in order, wherever they stand in it."""
    return [leaf.detach() for leaf in look_into(output).tensors.values()]


def _worst(expected: list[Tensor], actual: list[Tensor], label: str, limit: float) -> float:
    shapes = [[tuple(tensor.shape) for tensor in side] for side in (expected, actual)]
    if shapes[0] != shapes[1]:
        raise VerificationError(
            f"the exported file gives outputs of shape {shapes[1]} on {label}, the model {shapes[0]}"
        )
    worst = max((_relative(a, b) for a, b in zip(expected, actual, strict=True) if a.numel()), default=0.0)
    if not worst <= limit:
        raise VerificationError(
            f"the exported file differs from the model by {worst:.3g} relative on {label}; allowed is {limit:.3g}. "
            "Nothing was written"
        )
    return worst


def _relative(expected: Tensor, actual: Tensor) -> float:
    a, b = in_double(expected).cpu(), in_double(actual).cpu()
    scale = float(a.abs().max())
    difference = float((a - b).abs().max()) / (scale if scale > 0 else 1.0)
    return difference if math.isfinite(difference) else math.inf


def _tolerance(model: nn.Module, outputs: list[Tensor]) -> float:
    kinds = {tensor.dtype for tensor in (*model.parameters(), *outputs) if tensor.is_floating_point()}
    return max((TOLERANCES.get(kind, LOW_PRECISION_TOLERANCE) for kind in kinds), default=0.0)


def brief(error: BaseException) -> str:
    """The first cause of an error in one line; exporters write whole graphs into theirs."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    line = next(iter(text.splitlines()), "").strip()
    return f"{type(error).__name__}: {line[:LONGEST]}{' ...' if len(line) > LONGEST else ''}"
