"""The examples that a reconstruction looks at: batches of inputs as forward takes them."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from amsc.borrowing import InputSpec, call_arguments, copied_inputs, run_model
from amsc.data import Data, batch_size_of, moved, some_rows, spread_batches
from amsc.errors import DataError, InputError
from amsc.parallel import in_turn, world

__all__ = ["Examples", "calibration", "in_parts", "is_for_all", "own_batches", "ready", "run"]

MOST_BYTES = 2**30
"""Of what is kept of the layers that are looked at in one pass."""
Each = TypeVar("Each")

SEED = 20
"""Of what networks draw in evaluation; the same for all."""


@dataclass(frozen=True)
class Examples:
    """Batches of inputs, and how many examples they hold."""

    batches: tuple[Any, ...]
    count: int


def in_parts(layers: Sequence[Each], sizes: Sequence[float]) -> Iterator[list[Each]]:
    """The layers in runs of which so many bytes each fit into memory together; one that does not fit comes alone."""
    part, total = list[Each](), 0.0
    for layer, size in zip(layers, sizes, strict=True):
        if part and total + size > MOST_BYTES:
            yield part
            part, total = [], 0.0
        part.append(layer)
        total += size
    if part:
        yield part


def own_batches(batches: Sequence[Any]) -> list[tuple[int, Any]]:
    """The numbered batches that this process looks at: all of them where there are fewer than processes."""
    return list(enumerate(batches)) if is_for_all(batches) else list(in_turn(batches))


def is_for_all(batches: Sequence[Any]) -> bool:
    """Whether every process looks at all batches, so that nothing is to be summed."""
    return world().is_alone or len(batches) < world().size


def run(model: nn.Module, batch: Any, watch: Any) -> Any:
    """The output for a batch, while `watch` is looking on.

    Raises:
        InputError: forward fails on it.
    """
    inputs = ready(model, batch)
    with watch:
        return run_model(model, inputs)


def ready(model: nn.Module, batch: Any) -> Any:
    """A copy of the batch where the model is, with the random generator started."""
    tensor = next(itertools.chain(model.parameters(), model.buffers()), torch.zeros(()))
    torch.manual_seed(SEED)
    return copied_inputs(moved(batch, tensor.device))


def calibration(inputs: Any, spec: InputSpec, most: int) -> Examples:
    """At most `most` examples of `inputs`: batches, or pairs of batches and targets; in amsc's own data the training
    split, as it is in evaluation.

    Raises:
        DataError: there is none.
        InputError: what comes is not what the network was traced with.
    """
    batches, count = [], 0
    for batch in _batches(inputs, most):
        call = _call(batch, spec)
        size = _size(call)
        if size > most - count:
            call, size = some_rows(call, slice(0, most - count)) if _may_be_cut(call, size) else call, most - count
        if size:
            batches.append(call)
            count += size
        if count >= most:
            break
    if not batches:
        raise DataError("a reconstruction needs examples, and `inputs` holds none; give batches as forward takes them")
    return Examples(tuple(batches), count)


def _batches(inputs: Any, most: int) -> Iterator[Any]:
    if isinstance(inputs, Data):
        count = math.ceil(most / batch_size_of(inputs))
        yield from (batch for batch, _ in spread_batches(inputs, "train", count))
    elif isinstance(inputs, Tensor | Mapping):
        yield inputs
    elif isinstance(inputs, Iterable):
        yield from inputs
    else:
        raise InputError(
            f"inputs must be batches that can be iterated, such as a DataLoader or a list, or amsc's data; got"
            f" {type(inputs).__name__}"
        )


def _call(batch: Any, spec: InputSpec) -> Any:
    """The inputs of a batch: all of it where it is laid out like an example call, or the first of a pair that is."""
    if isinstance(batch, Tensor | Mapping):
        return batch
    if isinstance(batch, list | tuple):
        if _is_laid_out(batch, spec):
            return batch
        if len(batch) == 2 and _is_laid_out(batch[0], spec):
            return batch[0]
    said = ", ".join(type(part).__name__ for part in batch) if isinstance(batch, list | tuple) else ""
    raise InputError(
        f"expected each batch to be what forward takes, as in the example inputs, or a pair of that and targets; got a"
        f" {type(batch).__name__}{f' of {said}' if said else ''}"
    )


def _is_laid_out(batch: Any, spec: InputSpec) -> bool:
    try:
        layout = pytree.treespec_dumps(pytree.tree_flatten(call_arguments(batch))[1])
    except InputError:
        return False
    return any(layout == call.layout for call in spec.calls)


def _size(call: Any) -> int:
    """How many examples a batch holds: the length of the first axis of its first tensor that has one."""
    tensors = [leaf for leaf in pytree.tree_leaves(call) if isinstance(leaf, Tensor) and leaf.ndim]
    return len(tensors[0]) if tensors else 0


def _may_be_cut(call: Any, size: int) -> bool:
    tensors = [leaf for leaf in pytree.tree_leaves(call) if isinstance(leaf, Tensor) and leaf.ndim]
    return all(len(tensor) == size for tensor in tensors)
