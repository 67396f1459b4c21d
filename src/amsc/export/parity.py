"""What every export shares: batches of several sizes to compare on, and the comparison."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from amsc.borrowing import InputSpec, TensorSpec, call_arguments, in_double, look_into, random_inputs, run_model
from amsc.errors import InputError, SettingsError, VerificationError

__all__ = [
    "Exported",
    "axis_sizes",
    "batch_size",
    "batched",
    "brief",
    "check_axes",
    "check_parity",
    "output_tensors",
    "runs_along",
]

SEED = 20
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4}
"""Other runtimes order sums and fuse operators their own way: ten times what `verify` allows within PyTorch."""
LOW_PRECISION_TOLERANCE = 2e-2
BATCHES = (1, 2, 5)
"""Batch sizes on which a file with a free batch axis is compared."""
SCALES = (0.5, 2.0)
"""Shares of the example's sizes along other free axes on which a file is compared."""
LONGEST = 300
"""Characters of another program's error that are repeated."""

Runner = Callable[[tuple[Any, ...], Mapping[str, Any]], list[Tensor]]


@dataclass(frozen=True)
class Exported:
    """A file that has been written: its `format` ("onnx" or "pt2"), size, and the largest relative difference to the
    model that was found; `dynamic_batch`: it takes batches of any size; `dynamic_axes`: and any size along these."""

    path: str
    format: str
    bytes: int
    error: float
    dynamic_batch: bool
    dynamic_axes: tuple[int, ...] = ()


def batched(example_inputs: Any, batch: int | None) -> Any:
    """Random inputs like the example (of several calls the first), `batch` of them (as many as in it if None).

    The batch is the first axis of the first tensor, and of all others that have the same size there.

    Raises:
        InputError: the first tensor has no axis.
    """
    return _resized(example_inputs, {} if batch is None else {0: batch})


def _resized(example_inputs: Any, sizes: Mapping[int, int]) -> Any:
    """Random inputs like the example, with other `sizes` along some axes of all tensors that run along them."""
    spec, before = InputSpec.of(example_inputs), axis_sizes(example_inputs, sizes)
    leaves = tuple(_changed(leaf, sizes, before) for leaf in spec.leaves)
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


def _changed(leaf: TensorSpec, sizes: Mapping[int, int], before: Mapping[int, int]) -> TensorSpec:
    shape = (sizes[a] if a in sizes and size == before[a] else size for a, size in enumerate(leaf.shape))
    return replace(leaf, shape=tuple(shape))


def axis_sizes(example_inputs: Any, axes: Iterable[int]) -> dict[int, int]:
    """How long the first tensor is along each of these axes, and so all tensors that run along them.

    Raises:
        InputError: it has no such axis.
    """
    first = next(leaf for leaf in pytree.tree_leaves(call_arguments(example_inputs)) if isinstance(leaf, Tensor))
    for axis in axes:
        if not 0 <= axis < first.ndim:
            raise InputError(
                f"the first tensor of example_inputs has no axis {axis}: it has 0 (the batch) to {first.ndim - 1}"
            )
    return {axis: int(first.shape[axis]) for axis in axes}


def runs_along(leaf: Any, sizes: Mapping[int, int]) -> tuple[int, ...]:
    """The axes along which a leaf of the arguments is as long as the first tensor."""
    if not isinstance(leaf, Tensor):
        return ()
    return tuple(axis for axis, size in sizes.items() if axis < leaf.ndim and leaf.shape[axis] == size)


def check_axes(axes: Any) -> tuple[int, ...]:
    """The axes other than the batch that are to be free, in order.

    Raises:
        SettingsError: they are no numbers from 1.
    """
    found = tuple(axes) if isinstance(axes, Iterable) and not isinstance(axes, str) else (axes,)
    if not all(isinstance(axis, int) and not isinstance(axis, bool) and axis > 0 for axis in found):
        raise SettingsError(f"dynamic_axes: expected numbers of axes from 1, such as (2, 3); got {axes!r}")
    return tuple(sorted(set(found)))


def check_parity(
    model: nn.Module, run: Runner, example_inputs: Any, *, dynamic_batch: bool, dynamic_axes: Sequence[int] = ()
) -> float:
    """The largest relative difference (max|a - b| / max|a|, per output) between the model and the exported file.

    Compared on the example inputs and on random ones, with `dynamic_batch` in several batch sizes, and in other sizes
    along `dynamic_axes` that the model takes. The model must be in eval mode.

    Raises:
        VerificationError: they differ by more than the tolerance, or the file fails.
        InputError: the model takes no other size along the axes.
    """
    trials = [("the example inputs", example_inputs)]
    for batch in BATCHES if dynamic_batch else (None,):
        trials.append((f"random inputs, batch {batch or 'as given'}", batched(example_inputs, batch)))
    trials += _other_sizes(model, example_inputs, dynamic_axes)
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


def _other_sizes(model: nn.Module, example_inputs: Any, axes: Sequence[int]) -> list[tuple[str, Any]]:
    """Inputs of other sizes along the axes, as far as the model takes them."""
    trials, errors = [], []
    for scale in SCALES if axes else ():
        sizes = {axis: max(1, round(scale * size)) for axis, size in axis_sizes(example_inputs, axes).items()}
        inputs = _resized(example_inputs, sizes)
        try:
            run_model(model, inputs)
            trials.append((f"random inputs, sizes along axes {sizes}", inputs))
        except InputError as error:
            errors.append(f"{sizes}: {brief(error)}")
    if axes and not trials:
        raise InputError(f"the model takes no other size along axes {list(axes)} ({errors[0]}); leave them fixed")
    return trials


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
