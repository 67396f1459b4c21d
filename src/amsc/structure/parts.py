"""The parts of a structure: channel groups, blocks, costs and pins, as frozen plain values."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from math import prod
from typing import Any

from amsc.words.page import Page
from amsc.words.shown import Shown

__all__ = [
    "PRODUCERS",
    "Block",
    "BlockCall",
    "BlockKind",
    "ChannelGroup",
    "LayerCost",
    "Limit",
    "Member",
    "OutputLeaf",
    "Pin",
    "StoredSize",
]

PRODUCERS = ("out", "affine", "element")
"""Roles of the members that make a channel what it is, and that zeroing it zeroes."""


@dataclass(frozen=True)
class Member:
    """One axis of one parameter or buffer in which the channels of a group own positions.

    `indices[c]` are the positions of the group's channel `c` on `axis`. `role` says what the positions are:
    "out" (they produce the channel: output axis of a convolution or linear layer, and its bias),
    "in" (they consume it), "affine" (scale or shift of a normalisation), "statistic" (running mean or
    variance), "element" (a parameter used element-wise). Zeroing a channel zeroes "out", "affine" and
    "element" members; removing it removes all.
    """

    parameter: str
    axis: int
    indices: tuple[tuple[int, ...], ...]
    role: str


@dataclass(frozen=True, repr=False)
class ChannelGroup(Shown):
    """Channels that own positions on the same axes of the same parameters: `size` units, each removable alone.

    `kind`: "filter" (of a convolution), "hidden" (of a linear layer), "head" (of an attention; with grouped queries
    all that share keys), "head_dim" (the same dimension of every head), or "stream" (summed over several layers, as on
    a residual stream). Groups may overlap: a head and a dimension share positions.
    `removable`: channels may go; `reason` says why not. It is so where zeroing a channel and removing it are the same
    function (`exact`). Where a zeroed channel is not zero but a constant (behind a sigmoid, say), they are once the
    constant has moved into the biases of the layers `folds` that read it. Where they are not, as behind a LayerNorm,
    channels may go if that was asked for (see `with_inexact`), and `unproven` says why they are not.
    """

    name: str
    kind: str
    size: int
    removable: bool
    members: tuple[Member, ...]
    reason: str = ""
    folds: tuple[str, ...] = ()
    unproven: str = ""

    @property
    def exact(self) -> bool:
        """Whether channels may go, and removing one is the same function as zeroing it."""
        return self.removable and not self.unproven

    def page(self) -> Page:
        """Kind, size, and the axes on which it lies."""
        from amsc.structure.words import group_page  # which reads groups

        return group_page(self)

    def in_a_line(self) -> str:
        """Name, kind and size."""
        return f"{self.name!r}, {self.size} of kind {self.kind}{'' if self.exact else ', not exact'}"


@dataclass(frozen=True)
class OutputLeaf:
    """What a removed block returns at one place of its output.

    `kind` is "input" (the argument itself), "zeros" (zeros of the argument's shape, dtype and device), "zero" (the same
    without axes), "empty" (the argument without any entry along `axis`) or "constant" (the number, string or None in
    `constant`). Zeros that have not the argument's channels have `size` entries along `axis`; those go that go from
    `parameter_axis` of `parameter`. The argument is the one called `keyword`, or else at `position` (-1: it has none)
    of a call; `path` leads into it where it is a tuple, list or dict."""

    kind: str
    position: int = -1
    keyword: str = ""
    path: tuple[str, ...] = ()
    constant: Any = None
    axis: int = 0
    size: int = 0
    parameter: str = ""
    parameter_axis: int = 0


@dataclass(frozen=True)
class BlockCall:
    """What must stand in for a removed block: the leaves of its output, and the layout (as torch.utils._pytree
    writes it) that puts them together."""

    leaves: tuple[OutputLeaf, ...]
    layout: str


class BlockKind(str, Enum):
    """What a block is at its origin, and what it leaves behind; written as these words."""

    IDENTITY = "identity"
    BRANCH = "branch"
    DENSE = "dense"
    PLAIN = "plain"

    @property
    def is_dirac(self) -> bool:
        """Whether its origin is the kernel of Dirac, and what it reads is handed on; all others are silenced by
        zeros."""
        return self is BlockKind.PLAIN

    @property
    def leaves(self) -> str:
        """What is returned in its place: its "input", "zeros", or "nothing" for those who would read it."""
        return {BlockKind.BRANCH: "zeros", BlockKind.DENSE: "nothing"}.get(self, "input")

    def __str__(self) -> str:
        return self.value

    def __repr__(self) -> str:
        return repr(self.value)


@dataclass(frozen=True, repr=False)
class Block(Shown):
    """A submodule that can be removed whole: with its own parameters at their origin, and its own buffers (frozen
    scales and shifts) at zero, it no longer computes anything.

    `kind` is "identity" (with all at zero it returns its input), "branch" (it then returns zeros, and what it was added
    to goes on without it), "dense" (the channels that it makes are then all zero; they go with it, the whole of the
    groups `channels`) or "plain" (a convolution that keeps the shape of its input, and returns it where its kernel is
    that of Dirac and its bias zero). `parameters` are the names of all its parameters, `macs` what it costs for the
    example inputs. `call` says what stands in for it; None: `nn.Identity` does. Blocks may lie in one another."""

    name: str
    parameters: tuple[str, ...]
    macs: int
    kind: BlockKind = BlockKind.IDENTITY
    call: BlockCall | None = None
    channels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", BlockKind(self.kind))

    def page(self) -> Page:
        """Kind, costs, parameters, and what stands in for it."""
        from amsc.structure.words import block_page  # which reads blocks

        return block_page(self)

    def in_a_line(self) -> str:
        """Name, kind and costs."""
        return f"{self.name!r}, kind {self.kind}, {len(self.parameters)} parameters, {self.macs:,} macs"


@dataclass(frozen=True)
class LayerCost:
    """What one operation in `module` costs: `positions` times the sizes of the axes `along` (parameter, axis).

    Multiply-adds in `Structure.costs`; in a `Limit` its unit."""

    module: str
    positions: float
    along: tuple[tuple[str, int], ...] = ()

    def at(self, shapes: Mapping[str, tuple[int, ...]]) -> float:
        """With tensors of these shapes; 0 where a parameter is gone."""
        if any(name not in shapes for name, _ in self.along):
            return 0
        return self.positions * prod(shapes[name][axis] for name, axis in self.along)


@dataclass(frozen=True)
class Limit:
    """What a network may cost: the sum of `costs`, in `unit`, at most `amount`.

    Several limits of one unit together say that the largest of their sums counts (memory at different moments)."""

    unit: str
    amount: float
    costs: tuple[LayerCost, ...]

    def sum(self, shapes: Mapping[str, tuple[int, ...]]) -> float:
        """The sum with tensors of these shapes."""
        return sum(cost.at(shapes) for cost in self.costs)


@dataclass(frozen=True)
class Pin:
    """Positions of an axis that must stay, and why: the operator (and the module in which it ran). `source` is the
    line of the model's code that called it, as "file.py:12: code" ("" where torch's own modules did)."""

    parameter: str
    axis: int
    count: int
    reason: str
    source: str = ""


@dataclass(frozen=True)
class StoredSize:
    """A whole number that a module's own code keeps, and what it follows when the network is cut.

    It stands at `place` in `module`: the name of an attribute, then keys, positions and names that lead into what that
    holds. It is `number` now: a multiple of the channels of `group`; or the number of equal parts of this `axis` of
    `parameter` if it `counts` them, else the size of each part (the whole axis is one part). Without either it stays as
    it is, whatever it looks like."""

    module: str
    place: tuple[Any, ...]
    number: int
    group: str = ""
    parameter: str = ""
    axis: int = 0
    counts: bool = True
