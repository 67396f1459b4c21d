"""Norms and factors of leaves, in a few kernels however many leaves there are, and without waiting for the device."""

import copy
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from amsc.penalty.membership import Membership

__all__ = ["LeafRows"]


class LeafRows:
    """Slices ("rows") of tensors, each along one axis, and the leaf that each row belongs to.

    Tensors may have any mixture of floating types; norms and factors are float32 or better. One without an axis is a
    single row.

    Args:
        axes: for each tensor the axis whose positions are rows.
        leaves: for each tensor the leaf of each of its rows, -1 for rows in no leaf. Shape: row.
        shapes: the shape of each tensor.
        num_leaves: number of leaves.
    """

    def __init__(
        self, axes: Sequence[int], leaves: Sequence[Tensor], shapes: Sequence[Sequence[int]], num_leaves: int
    ) -> None:
        is_wide = [len(shape) > 1 for shape in shapes]
        self._order = sorted(range(len(axes)), key=lambda i: is_wide[i])  # the narrow ones first: one `cat` for all
        self._num_narrow = len(axes) - sum(is_wide)
        self._axes = [axes[i] for i in self._order]
        self._sizes = [len(leaves[i]) for i in self._order]
        self._is_whole = [bool((leaves[i] >= 0).all()) for i in self._order]
        leaf = torch.cat([torch.empty(0, dtype=torch.long), *(leaves[i] for i in self._order)])
        self._leaves = Membership.of(leaf, num_leaves)
        held = [prod(shapes[i]) // max(1, size) for i, size in zip(self._order, self._sizes, strict=True)]
        row_sizes = torch.tensor(held, dtype=torch.float32).repeat_interleave(
            torch.tensor(self._sizes, dtype=torch.long)
        )
        self._counts = self._leaves.sums(row_sizes).clamp(min=1)

    def to(self, device: torch.device) -> "LeafRows":
        """The same for tensors on `device`."""
        moved = copy.copy(self)
        moved._leaves, moved._counts = self._leaves.to(device), self._counts.to(device)
        return moved

    def norms(self, tensors: Sequence[Tensor]) -> Tensor:
        """Euclidean norm of every leaf. Shape: leaf."""
        return self._leaves.sums(self._row_norms(tensors, 2.0).square()).sqrt()

    def are_zero(self, tensors: Sequence[Tensor]) -> Tensor:
        """Whether every element of a leaf is exactly zero; a norm would take what underflows for zero. Shape: leaf."""
        peaks = self._row_norms(tensors, float("inf"))
        return self._leaves.sums((peaks != 0).to(peaks)) == 0

    def sums(self, tensors: Sequence[Tensor]) -> Tensor:
        """Sum of the elements of every leaf. Shape: leaf."""
        rows = [
            tensor.to(_accurate(tensor.dtype)).movedim(axis, 0).reshape(size, -1).sum(1)
            for tensor, axis, size in zip(self._sorted(tensors), self._axes, self._sizes, strict=True)
        ]
        return self._leaves.sums(torch.cat(rows)) if rows else self._counts.new_zeros(self._counts.shape)

    def means(self, tensors: Sequence[Tensor]) -> Tensor:
        """Mean of the elements of every leaf. Shape: leaf."""
        sums = self.sums(tensors)
        return sums / self._counts.to(sums)

    def multiply_(self, tensors: Sequence[Tensor], factors: Tensor) -> None:
        """Multiply every leaf by its factor in place; rows in no leaf stay as they are. Shape of `factors`: leaf."""
        targets = self._sorted(tensors)
        rows = torch.split(self._leaves.spread(factors, none=1.0), self._sizes)
        views = [_along(row, t, axis) for row, t, axis in zip(rows, targets, self._axes, strict=True)]
        if targets:
            torch._foreach_mul_(targets, views)

    def fill_(self, tensors: Sequence[Tensor], values: Tensor) -> None:
        """Set every element of a leaf to its value in place; rows in no leaf stay as they are. Shape: leaf."""
        rows = torch.split(self._leaves.spread(values, none=0.0), self._sizes)
        leaves = torch.split(self._leaves.group, self._sizes)
        for index, tensor in enumerate(self._sorted(tensors)):
            value = _along(rows[index], tensor, self._axes[index]).to(tensor.dtype)
            if not self._is_whole[index]:  # chosen by `where`: with a mask as index the processor waits for the device
                within = _along(leaves[index] < len(self._counts), tensor, self._axes[index])
                value = torch.where(within, value, tensor)
            tensor.copy_(value)

    def _sorted(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The tensors in the order of the rows, those without an axis as vectors."""
        found = (tensors[i].detach() for i in self._order)
        return [tensor if tensor.ndim else tensor.view(1) for tensor in found]

    def _row_norms(self, tensors: Sequence[Tensor], order: float) -> Tensor:
        """Norm of every row, in the order of the rows. Shape: row."""
        targets = self._sorted(tensors)
        narrow = targets[: self._num_narrow]
        parts = [torch.cat(narrow).abs()] if narrow else []
        for tensor, axis in zip(targets[self._num_narrow :], self._axes[self._num_narrow :], strict=True):
            others = [a for a in range(tensor.ndim) if a != axis]
            parts.append(torch.linalg.vector_norm(tensor, order, dim=others, dtype=_accurate(tensor.dtype)))
        return torch.cat([part.to(_accurate(part.dtype)) for part in parts]) if parts else torch.zeros(0)


def _accurate(dtype: torch.dtype) -> torch.dtype:
    """float32, or float64 where `dtype` is: half precision overflows in a square."""
    return torch.promote_types(dtype, torch.float32)


def _along(row: Tensor, tensor: Tensor, axis: int) -> Tensor:
    """`row` so shaped that it multiplies along `axis` of `tensor`."""
    if tensor.ndim == 1:
        return row
    return row.view([-1 if a == axis else 1 for a in range(tensor.ndim)])
