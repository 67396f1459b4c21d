"""Labels: who owns each element of a tensor, and the ledger of what must live and die together.

A label tensor has the shape of the tensor it describes. 0 means "belongs to nothing removable"; +g that the
element belongs to g and is zero when g is zeroed; -g that it belongs to g but is *not* zero then (a sigmoid
of it, say). Axes along which labels do not change have stride 0, so that a feature map costs one number
per channel, not one per pixel.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

__all__ = ["Ledger", "Mark", "compact", "core", "no_labels", "varying_axes"]


def no_labels(shape: torch.Size | tuple[int, ...]) -> Tensor:
    """Labels of a tensor that belongs to nothing removable."""
    return torch.zeros((), dtype=torch.int64).expand(shape)


def varying_axes(labels: Tensor) -> list[int]:
    """Axes along which a compact label tensor changes."""
    return [axis for axis in range(labels.ndim) if labels.stride(axis) != 0 and labels.shape[axis] > 1]


def core(labels: Tensor) -> Tensor:
    """The label tensor with size 1 on every axis along which it does not change."""
    for axis in range(labels.ndim):
        if labels.stride(axis) == 0 and labels.shape[axis] > 1:
            labels = labels.narrow(axis, 0, 1)
    return labels


def compact(labels: Tensor) -> Tensor:
    """The same labels with stride 0 on every axis along which they do not change."""
    if labels.numel() == 0:
        return no_labels(labels.shape)
    small = core(labels)
    for axis in range(small.ndim):
        if small.shape[axis] > 1:
            first = small.narrow(axis, 0, 1)
            if bool((small == first).all()):
                small = first
    return small.expand(labels.shape)


@dataclass
class Mark:
    """A remark on some labels, such as the reason why they must stay."""

    labels: Tensor
    reason: str


@dataclass
class Ledger:
    """What tracing learns about labels: which are united, which must stay (`pins`), which are read while not
    zero (`taints`: their groups are not exact), which are summed (`sums`)."""

    count: int = 1
    edges: list[Tensor] = field(default_factory=list)
    pins: list[Mark] = field(default_factory=list)
    taints: list[Mark] = field(default_factory=list)
    sums: list[Mark] = field(default_factory=list)

    def fresh(self, size: int) -> Tensor:
        """`size` labels that nothing else has."""
        labels = torch.arange(self.count, self.count + size)
        self.count += size
        return labels

    def pin(self, labels: Tensor, reason: str) -> None:
        """What carries one of these labels stays."""
        self._mark(self.pins, core(labels), reason)

    def taint(self, labels: Tensor, reason: str) -> None:
        """A layer reads these elements: those that are not zero when zeroed make their group inexact."""
        small = core(labels)
        self._mark(self.taints, small[small < 0], reason)

    def sum(self, labels: Tensor, reason: str) -> None:
        """These labels take part in a sum of activations."""
        self._mark(self.sums, labels, reason)

    @staticmethod
    def _mark(marks: list[Mark], labels: Tensor, reason: str) -> None:
        named = labels[labels != 0].abs().unique()
        if named.numel():
            marks.append(Mark(named, reason))

    def unite(self, left: Tensor, right: Tensor, reason: str) -> None:
        """Elements that are aligned live and die together (shapes broadcast); with one that belongs to
        nothing removable they stay, for `reason`."""
        left, right = torch.broadcast_tensors(left.abs(), right.abs())
        both = (left != 0) & (right != 0)
        differ = both & (left != right)
        if bool(differ.any()):
            self.edges.append(torch.stack((left[differ], right[differ])))
        if bool((~both).any()):
            self.pin(left[~both], reason)
            self.pin(right[~both], reason)

    def mix(self, labels: Tensor, axes: list[int], reason: str) -> Tensor:
        """Unite all elements along `axes` (an operation mixes them); labels with size 1 on these axes,
        negative where one of the mixed elements is."""
        labels = core(labels)
        for axis in axes:
            if labels.shape[axis] > 1:
                first = labels.narrow(axis, 0, 1)
                self.unite(first, labels, reason)
                is_zero = (labels > 0).all(dim=axis, keepdim=True)
                labels = torch.where(is_zero, first.abs(), -first.abs())
        return labels

    def components(self) -> np.ndarray:
        """Component number of every label (index 0 is unused)."""
        if not self.edges:
            return np.arange(self.count)
        left, right = torch.cat(self.edges, dim=1).numpy()
        graph = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(self.count, self.count))
        return np.asarray(connected_components(graph, directed=False)[1])
