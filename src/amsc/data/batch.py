"""Batches: how many examples one holds, some of them, and where they are.

How many examples a batch holds is the targets' to say: they are a tensor, or tensors in tuples and dicts, whose first
axis counts examples (single numbers among them are for all); or a list with an entry for each example, such as the
boxes of each image; or `Unlabelled`, where there are inputs alone. Of the inputs nothing is known: see `may_be_split`.
"""

import operator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from amsc.errors import DataError

__all__ = ["Unlabelled", "batch_size", "inputs_alone", "may_be_split", "moved", "some_examples", "some_rows"]

T = TypeVar("T")


@dataclass(frozen=True)
class Unlabelled:
    """In the place of the targets of a batch that has none: how many examples there are."""

    count: int


def inputs_alone(batch: T) -> tuple[T, Unlabelled]:
    """A batch of inputs without labels, as (inputs, targets): the whole batch is what forward takes, and the first axis
    of its first tensor counts examples.

        LoaderData(train, validation, test, split=amsc.data.inputs_alone)

    Raises:
        DataError: there is no tensor with an axis in it.
    """
    tensors = [leaf for leaf in _tensors(batch) if leaf.ndim]
    if not tensors:
        raise DataError(
            f"expected inputs with a tensor in them whose first axis counts examples; got a {type(batch).__name__} "
            "without one"
        )
    return batch, Unlabelled(len(tensors[0]))


def batch_size(target: Any) -> int:
    """How many examples the targets are for.

    Raises:
        DataError: they hold no tensor with an axis and are no list.
    """
    if isinstance(target, Unlabelled):
        return target.count
    if isinstance(target, list):
        return len(target)
    tensors = [leaf for leaf in _tensors(target) if leaf.ndim]
    if not tensors:
        raise DataError(
            f"expected targets with a tensor in them whose first axis counts examples, or a list with one entry per "
            f"example; got {target!r}; of single examples DataLoader(dataset, batch_size=128) makes batches"
        )
    return len(tensors[0])


def may_be_split(inputs: Any, target: Any) -> bool:
    """Whether by their shapes all tensors of a batch could have its examples along their first axes.

    False is certain: sequences that lie (time, batch), graphs, masks for all examples, single numbers, lists of images
    of several sizes. True is not, as a time axis may be as long as the batch: only the network can tell."""
    count, tensors = batch_size(target), _tensors(inputs)
    if not tensors or not all(leaf.ndim and len(leaf) == count for leaf in tensors):
        return False
    return isinstance(target, list) or all(len(leaf) == count for leaf in _tensors(target) if leaf.ndim)


def some_examples(target: T, rows: slice) -> T:
    """The targets of these examples; single numbers stay."""
    if isinstance(target, Unlabelled):
        return replace(target, count=len(range(target.count)[rows]))
    take: Any = operator.itemgetter(rows)
    found: T = take(target) if isinstance(target, list) else some_rows(target, rows)
    return found


def some_rows(inputs: T, rows: slice) -> T:
    """These positions of the first axis of all tensors; single numbers stay."""
    found: T = pytree.tree_map_only(Tensor, lambda tensor: tensor[rows] if tensor.ndim else tensor, inputs)
    return found


def moved(value: T, device: torch.device) -> T:
    """The same with all tensors on `device`.

    To a CUDA device they go by way of pinned memory and without waiting: a copy from other memory starts only when all
    that the device has to do is done. Never so the other way, where the values would be read before they have come."""

    def to_device(tensor: Tensor) -> Tensor:
        if device.type == "cuda" and tensor.device.type == "cpu" and tensor.layout == torch.strided:
            return tensor.pin_memory().to(device, non_blocking=True)
        return tensor.to(device)

    found: T = pytree.tree_map_only(Tensor, to_device, value)
    return found


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
