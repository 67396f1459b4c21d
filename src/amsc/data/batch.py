"""Batches: how many examples one holds, some of them, and where they are.

Targets are a tensor, or tensors in tuples and dicts, whose first axis counts examples; or a list with an entry for each
example, such as the boxes of each image.
"""

import operator
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from amsc.errors import DataError

__all__ = ["batch_size", "moved", "some_examples"]

T = TypeVar("T")


def batch_size(target: Any) -> int:
    """How many examples the targets are for.

    Raises:
        DataError: they hold no tensor and are no list.
    """
    if isinstance(target, Tensor | list):
        return len(target)
    tensors = [leaf for leaf in pytree.tree_leaves(target) if isinstance(leaf, Tensor)]
    if not tensors:
        raise DataError(f"expected targets with a tensor in them, or a list with one entry per example; got {target!r}")
    return len(tensors[0])


def some_examples(target: T, rows: slice) -> T:
    """The targets of these examples."""
    take: Any = operator.itemgetter(rows)
    found: T = take(target) if isinstance(target, list) else pytree.tree_map_only(Tensor, take, target)
    return found


def moved(value: T, device: torch.device) -> T:
    """The same with all tensors on `device`."""
    found: T = pytree.tree_map_only(Tensor, lambda tensor: tensor.to(device), value)
    return found
