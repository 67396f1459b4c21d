"""Norms and multiplication of many small slices of many tensors, in a few operations however many leaves there are."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Rows"]


class Rows:
    """Slices ("rows") of tensors, each along one axis, and the leaf that each row belongs to.

    Tensors may have any mixture of floating types; norms and factors are float32 or better.

    Args:
        axes: for each tensor the axis whose positions are rows.
        leaves: for each tensor the leaf of each of its rows, -1 for rows in no leaf. Shape: row.
        wide: for each tensor whether its rows hold more than one element.
        num_leaves: number of leaves.
    """

    def __init__(self, axes: Sequence[int], leaves: Sequence[Tensor], wide: Sequence[bool], num_leaves: int) -> None:
        self._order = sorted(range(len(axes)), key=lambda i: wide[i])  # the narrow ones first: one `cat` does them all
        self._num_narrow = len(axes) - sum(wide)
        self._axes = [axes[i] for i in self._order]
        self._sizes = [len(leaves[i]) for i in self._order]
        self._num_leaves = num_leaves
        leaf = torch.cat([torch.empty(0, dtype=torch.long), *(leaves[i] for i in self._order)])
        self._leaf = torch.where(leaf < 0, num_leaves, leaf)  # rows in no leaf share one more, which is ignored

    def move_to(self, device: torch.device) -> None:
        """Be ready for tensors on `device`."""
        self._leaf = self._leaf.to(device)

    def norms(self, tensors: Sequence[Tensor]) -> Tensor:
        """Euclidean norm of every leaf. Shape: leaf."""
        return self._sum(self._row_norms(tensors, 2.0).square()).sqrt()

    def are_zero(self, tensors: Sequence[Tensor]) -> Tensor:
        """Whether every element of a leaf is exactly zero; a norm would take what underflows for zero. Shape: leaf."""
        peaks = self._row_norms(tensors, float("inf"))
        return self._sum((peaks != 0).to(peaks)) == 0

    def sums(self, tensors: Sequence[Tensor]) -> Tensor:
        """Sum of the elements of every leaf. Shape: leaf."""
        rows = [
            tensors[i].to(_accurate(tensors[i].dtype)).movedim(axis, 0).reshape(tensors[i].shape[axis], -1).sum(1)
            for i, axis in zip(self._order, self._axes, strict=True)
        ]
        return self._sum(torch.cat(rows)) if rows else torch.zeros(self._num_leaves)

    def multiply_(self, tensors: Sequence[Tensor], factors: Tensor) -> None:
        """Multiply every leaf by its factor in place; rows in no leaf stay as they are. Shape of `factors`: leaf."""
        rows = torch.split(torch.cat([factors, factors.new_ones(1)])[self._leaf], self._sizes)
        targets = [tensors[i] for i in self._order]
        views = [_along(row, t, axis) for row, t, axis in zip(rows, targets, self._axes, strict=True)]
        if targets:
            torch._foreach_mul_(targets, views)

    def means(self, tensors: Sequence[Tensor]) -> Tensor:
        """Mean of the elements of every leaf. Shape: leaf."""
        return self.sums(tensors) / self.sums([torch.ones_like(tensor) for tensor in tensors]).clamp(min=1)

    def fill_(self, tensors: Sequence[Tensor], values: Tensor) -> None:
        """Set every element of a leaf to its value in place; rows in no leaf stay as they are. Shape: leaf."""
        leaves = torch.split(self._leaf, self._sizes)
        for leaf, index, axis in zip(leaves, self._order, self._axes, strict=True):
            within = leaf < self._num_leaves
            rows = tensors[index].movedim(axis, 0)
            shape = (-1, *([1] * (rows.ndim - 1)))
            rows[within] = values[leaf[within]].to(rows.dtype).view(shape).expand(-1, *rows.shape[1:])

    def _row_norms(self, tensors: Sequence[Tensor], order: float) -> Tensor:
        """Norm of every row, in the order of `self._leaf`. Shape: row."""
        targets = [tensors[i].detach() for i in self._order]
        narrow = [t.reshape(-1) for t in targets[: self._num_narrow]]
        parts = [torch.cat(narrow).abs()] if narrow else []
        for tensor, axis in zip(targets[self._num_narrow :], self._axes[self._num_narrow :], strict=True):
            others = [a for a in range(tensor.ndim) if a != axis]
            parts.append(torch.linalg.vector_norm(tensor, order, dim=others, dtype=_accurate(tensor.dtype)))
        return torch.cat([part.to(_accurate(part.dtype)) for part in parts]) if parts else torch.zeros(0)

    def _sum(self, rows: Tensor) -> Tensor:
        return rows.new_zeros(self._num_leaves + 1).index_add_(0, self._leaf, rows)[:-1]


def _accurate(dtype: torch.dtype) -> torch.dtype:
    """float32, or float64 where `dtype` is: half precision overflows in a square."""
    return torch.promote_types(dtype, torch.float32)


def _along(row: Tensor, tensor: Tensor, axis: int) -> Tensor:
    """`row` so shaped that it multiplies along `axis` of `tensor`."""
    if tensor.ndim == 1:
        return row
    return row.view([-1 if a == axis else 1 for a in range(tensor.ndim)])
