"""Labels: who owns each element of a tensor, and the ledger of what must live and die together.

A tensor carries *layers* of labels, each of its shape: 0 means "belongs to nothing removable", +g that the element
belongs to g and is zero when g is zeroed, -g that it belongs to g but is *not* zero then (a sigmoid of it, say). An
element goes when any of its layers goes: a weight has one layer for its rows and one for its columns. Axes along
which a layer does not change have stride 0, so that a feature map costs one number per channel, not one per pixel.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

__all__ = [
    "Box",
    "Grouped",
    "Ledger",
    "Mark",
    "Read",
    "Work",
    "compact",
    "core",
    "no_labels",
    "squeezed",
    "varying_axes",
]


def no_labels(shape: torch.Size | tuple[int, ...]) -> Tensor:
    """Labels of a tensor that belongs to nothing removable."""
    return torch.zeros((), dtype=torch.int64).expand(shape)


def varying_axes(layer: Tensor) -> tuple[int, ...]:
    """Axes along which a compact layer changes."""
    return tuple(axis for axis in range(layer.ndim) if layer.stride(axis) != 0 and layer.shape[axis] > 1)


def core(layer: Tensor) -> Tensor:
    """The layer with size 1 on every axis along which it does not change."""
    for axis in range(layer.ndim):
        if layer.stride(axis) == 0 and layer.shape[axis] > 1:
            layer = layer.narrow(axis, 0, 1)
    return layer


def squeezed(layer: Tensor) -> Tensor:
    """The layer without the axes along which it does not change."""
    return layer[tuple(slice(None) if axis in varying_axes(layer) else 0 for axis in range(layer.ndim))]


def compact(layer: Tensor) -> Tensor:
    """The same layer with stride 0 on every axis along which it does not change."""
    if layer.numel() == 0:
        return no_labels(layer.shape)
    small = core(layer)
    for axis in range(small.ndim):
        if small.shape[axis] > 1:
            first = small.narrow(axis, 0, 1)
            if bool((small == first).all()):
                small = first
    return small.expand(layer.shape)


@dataclass(frozen=True)
class Mark:
    """A remark on some labels, such as the reason why they must stay."""

    labels: Tensor
    reason: str


@dataclass(frozen=True)
class Box:
    """Labels of a tensor along at least two axes: what goes must be whole slices of it, or it would have holes.

    With `headed`, the last position of the last axis holds the labels of the slices along the other axes."""

    labels: Tensor
    headed: bool
    reason: str


@dataclass(frozen=True)
class Read:
    """Elements that an operator combines along `axes` into one. Where only some of them go the result is still the
    same if these are zero and `takes_zeros`, or if they are constants, which the layer `folds` ("" for none) can have
    in its bias; otherwise what goes is not exact."""

    labels: Tensor
    axes: tuple[int, ...]
    takes_zeros: bool
    reason: str
    folds: str = ""


@dataclass(frozen=True)
class Work:
    """Multiply-adds of one operator in `module`: proportional to the axes `along` of parameters, each (name, axis), and
    to the number of elements of each of `arrays`, labels of activations."""

    module: str
    macs: int
    along: tuple[tuple[str, int], ...] = ()
    arrays: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Grouped:
    """A convolution with groups: labels of what it reads (group x input; None: of nothing removable) and makes (group x
    output), and of the axis of its `weight` along the inputs of a group, which all groups share.

    What goes are whole groups with their inputs, or an equal share of each group; `weight` is "" where only the first
    will do."""

    read: Tensor | None
    inputs: Tensor
    made: Tensor
    reason: str
    weight: str = ""


@dataclass
class Ledger:
    """What tracing learns about labels: which are united (`edges`, by the operators `ties`), must stay (`pins`), keep
    tensors rectangular (`boxes`), are combined (`reads`), are summed (`sums`), number attention heads (`heads`), the
    work done, and what is decided once all is known: what goes from convolutions with groups (`grouped`).

    `locate()` tells the line of the user's model that is running; `sources` keeps it for every reason given."""

    locate: Callable[[], str] = str
    sources: dict[str, str] = field(default_factory=dict)
    count: int = 1
    edges: list[Tensor] = field(default_factory=list)
    ties: list[str] = field(default_factory=list)
    pins: list[Mark] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    sums: list[Mark] = field(default_factory=list)
    heads: list[Mark] = field(default_factory=list)
    work: list[Work] = field(default_factory=list)
    grouped: list[Grouped] = field(default_factory=list)
    boxes: dict[tuple[tuple[int, ...], bool, bytes], Box] = field(default_factory=dict)

    def fresh(self, *shape: int) -> Tensor:
        """Labels of this shape that nothing else has."""
        size = prod(shape)
        labels = torch.arange(self.count, self.count + size).reshape(shape)
        self.count += size
        return labels

    def pin(self, labels: Tensor, reason: str) -> None:
        """What carries one of these labels stays."""
        self._mark(self.pins, core(labels), reason)

    def pin_layers(self, layers: Iterable[Tensor], reason: str) -> None:
        """Everything labelled in `layers` stays."""
        for layer in layers:
            self.pin(layer, reason)

    def sum(self, labels: Tensor, reason: str) -> None:
        """These labels take part in a sum of activations."""
        self._mark(self.sums, labels, reason)

    def head(self, labels: Tensor, reason: str) -> None:
        """These labels number the heads of an attention."""
        self._mark(self.heads, labels, reason)

    def read(self, layer: Tensor, axes: Sequence[int], reason: str, *, takes_zeros: bool, folds: str = "") -> None:
        """An operator combines the elements of `layer` along `axes`; see `Read`."""
        varying = varying_axes(layer)
        inner = tuple(varying.index(axis) for axis in axes if axis in varying)
        if inner:
            self.reads.append(Read(squeezed(layer), inner, takes_zeros, reason, folds))
            self._locate(reason)

    def box(self, layer: Tensor, reason: str) -> None:
        """Whatever goes from a tensor with this layer must be whole slices of it."""
        small = squeezed(layer).abs()
        if small.ndim > 1:
            self._add_box(small, False, reason)

    def tie(self, layer: Tensor, heads: Tensor, reason: str) -> None:
        """The slices of `layer` go with `heads`, which has the same rank and varies along fewer axes: each of its
        labels goes if and only if the whole slice under it does."""
        own, over = core(layer).abs(), core(heads).abs()
        axes = varying_axes(over.contiguous())
        others = [axis for axis in range(own.ndim) if axis not in axes]
        sizes = [over.shape[axis] for axis in axes]
        flat = own.permute(*axes, *others).reshape(*sizes, -1)
        self._add_box(torch.cat((flat, over.permute(*axes, *others).reshape(*sizes, 1)), -1), True, reason)

    def freeze(self, layer: Tensor, axes: Sequence[int], reason: str) -> None:
        """No slice of `layer` across these of its axes can go; slices across others may."""
        varying = varying_axes(layer)
        across = [axis for axis in varying if axis in axes]
        if not across:
            return
        if len(across) == len(varying):
            self.pin(layer, reason)
            return
        small = core(layer)
        heads = self.fresh(*(size if axis in across else 1 for axis, size in enumerate(small.shape)))
        self.pin(heads, reason)
        self.tie(small, heads, reason)

    def note_grouped(self, grouped: Grouped) -> None:
        """A convolution with groups has run; see `Grouped`."""
        self.grouped.append(grouped)
        self._locate(grouped.reason)

    def unite(self, left: Tensor, right: Tensor, reason: str) -> None:
        """Elements that are aligned live and die together (shapes broadcast); with one that belongs to
        nothing removable they stay, for `reason`."""
        left, right = torch.broadcast_tensors(left.abs(), right.abs())
        both = (left != 0) & (right != 0)
        differ = both & (left != right)
        if bool(differ.any()):
            self.edges.append(torch.stack((left[differ], right[differ])))
            self.ties.append(reason)
            self._locate(reason)
        if not bool(both.all()):
            self.pin(left[~both], f"{reason} joins it with values that stay")
            self.pin(right[~both], f"{reason} joins it with values that stay")

    def mix(self, layer: Tensor, axes: Sequence[int], reason: str) -> Tensor:
        """Unite all elements along `axes` (an operation mixes them); a layer with size 1 on these axes,
        negative where one of the mixed elements is."""
        small = core(layer)
        for axis in axes:
            if small.shape[axis] > 1:
                first = small.narrow(axis, 0, 1)
                self.unite(first, small, reason)
                is_zero = (small > 0).all(dim=axis, keepdim=True)
                small = torch.where(is_zero, first.abs(), -first.abs())
        return small

    def components(self) -> np.ndarray:
        """Component number of every label (index 0 is unused)."""
        if not self.edges:
            return np.arange(self.count)
        left, right = torch.cat(self.edges, dim=1).numpy()
        graph = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(self.count, self.count))
        return np.asarray(connected_components(graph, directed=False)[1])

    def _add_box(self, labels: Tensor, headed: bool, reason: str) -> None:
        key = (tuple(labels.shape), headed, labels.contiguous().numpy().tobytes())
        self.boxes.setdefault(key, Box(labels, headed, reason))
        self._locate(reason)

    def _mark(self, marks: list[Mark], labels: Tensor, reason: str) -> None:
        named = labels[labels != 0].abs().unique()
        if named.numel():
            marks.append(Mark(named, reason))
            self._locate(reason)

    def _locate(self, reason: str) -> None:
        if reason not in self.sources:
            self.sources[reason] = self.locate()
