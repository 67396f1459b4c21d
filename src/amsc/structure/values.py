"""What tracing a network yields: channel groups, blocks, costs and pins, as frozen plain values."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, TypeVar

from amsc.errors import CutError
from amsc.model_access import InputSpec
from amsc.structure.naming import matching, modules_of, nearest_name

__all__ = ["Block", "BlockCall", "ChannelGroup", "LayerCost", "Member", "OutputLeaf", "Pin", "Structure"]


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


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that own positions on the same axes of the same parameters: `size` units, each removable alone.

    `kind`: "filter" (of a convolution), "hidden" (of a linear layer), "head" (of an attention; with grouped queries
    all that share keys), "head_dim" (the same dimension of every head), or "stream" (summed over several layers, as on
    a residual stream). Groups may overlap: a head and a dimension share positions.
    `exact`: zeroing a channel and removing it are the same function; `reason` says why not. Where a zeroed channel is
    not zero but a constant (behind a sigmoid, say), the same function once the constant has moved into the biases of
    the layers `folds` that read it.
    """

    name: str
    kind: str
    size: int
    exact: bool
    members: tuple[Member, ...]
    reason: str = ""
    folds: tuple[str, ...] = ()


@dataclass(frozen=True)
class OutputLeaf:
    """What a removed block returns at one place of its output.

    `kind` is "input" (the argument itself), "zeros" (zeros of the argument's shape, dtype and device), "zero" (the same
    without axes) or "constant" (the number, string or None in `constant`). The argument is the one called `keyword`, or
    else at `position` (-1: it has none) of a call; `path` leads into it where it is a tuple, list or dict."""

    kind: str
    position: int = -1
    keyword: str = ""
    path: tuple[str, ...] = ()
    constant: Any = None


@dataclass(frozen=True)
class BlockCall:
    """What must stand in for a removed block: the leaves of its output, and the layout (as torch.utils._pytree
    writes it) that puts them together."""

    leaves: tuple[OutputLeaf, ...]
    layout: str


@dataclass(frozen=True)
class Block:
    """A submodule that can be removed whole: with its own parameters at zero it no longer computes anything.

    `kind` is "identity" (it then returns its input) or "branch" (it then returns zeros, and what it was added to goes
    on without it). `parameters` are the names of all its parameters, `macs` what it costs for the example inputs.
    `call` says what stands in for it; None: `nn.Identity` does. Blocks may lie in one another."""

    name: str
    parameters: tuple[str, ...]
    macs: int
    kind: str = "identity"
    call: BlockCall | None = None


@dataclass(frozen=True)
class LayerCost:
    """Multiply-adds of one operation in `module`: `positions` times the sizes of the axes `along` (parameter, axis)."""

    module: str
    positions: int
    along: tuple[tuple[str, int], ...] = ()

    def macs(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """With tensors of these shapes; 0 where a parameter is gone."""
        if any(name not in shapes for name, _ in self.along):
            return 0
        return self.positions * prod(shapes[name][axis] for name, axis in self.along)


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
class Structure:
    """Which axes of a network live and die together, which blocks can go, what everything costs.

    `shapes` holds every parameter and buffer the forward pass used (first names only, buffers marked in `buffers`);
    `unused` those it did not touch."""

    inputs: InputSpec
    shapes: Mapping[str, tuple[int, ...]]
    buffers: tuple[str, ...]
    channels: tuple[ChannelGroup, ...]
    blocks: tuple[Block, ...]
    costs: tuple[LayerCost, ...]
    pins: tuple[Pin, ...]
    unused: tuple[str, ...] = field(default=())

    def group(self, name: str) -> ChannelGroup:
        """The channel group of that name; CutError names the nearest one if there is none."""
        return _find(self.channels, name, "channel group")

    def block(self, name: str) -> Block:
        """The removable block of that name; CutError names the nearest one if there is none."""
        return _find(self.blocks, name, "block")

    @property
    def outer_blocks(self) -> tuple[Block, ...]:
        """The blocks that lie in no other block, so that no two of them share a parameter."""
        names = {block.name for block in self.blocks}
        return tuple(block for block in self.blocks if names.isdisjoint(_ancestors(block.name)))

    def removed_positions(
        self, channels: Mapping[str, Iterable[int]], blocks: Iterable[str] = ()
    ) -> dict[tuple[str, int], tuple[int, ...]]:
        """(parameter, axis) -> sorted positions that go with these channels (group name -> indices).

        Parameters of the removed blocks are left out: they go whole; so are channels produced by nothing else."""
        gone = self._block_parameters(blocks)
        positions: dict[tuple[str, int], set[int]] = {}
        for name, indices in channels.items():
            group = self.group(name)
            chosen = self._checked(group, indices)
            if all(member.parameter in gone for member in group.members if member.role in PRODUCERS):
                continue  # nothing produces these channels any more; the block's stand-in has all of them
            for member in group.members:
                if member.parameter not in gone:
                    owned = positions.setdefault((member.parameter, member.axis), set())
                    owned.update(p for c in chosen for p in member.indices[c])
        return {key: tuple(sorted(owned)) for key, owned in positions.items() if owned}

    def folds(self, channels: Mapping[str, Sequence[int]], blocks: Iterable[str] = ()) -> tuple[str, ...]:
        """The layers that read these channels as constants, which move into their biases; sorted."""
        layers = {layer for group in self.channels if channels.get(group.name) for layer in group.folds}
        if not layers:
            return ()
        positions = self.removed_positions(channels, blocks)
        return tuple(sorted(layer for layer in layers if (f"{layer}.weight", 1) in positions))

    def with_biases(self, layers: Iterable[str]) -> "Structure":
        """The structure of the same network in which all these layers have a bias."""
        new = {f"{layer}.weight": f"{layer}.bias" for layer in layers if f"{layer}.bias" not in self.shapes}
        if not new:
            return self
        shapes: dict[str, tuple[int, ...]] = {}
        for name, shape in self.shapes.items():
            shapes[name] = shape
            if name in new:
                shapes[new[name]] = shape[:1]
        return replace(
            self,
            shapes=shapes,
            channels=tuple(_with_biases(group, new) for group in self.channels),
            blocks=tuple(replace(block, parameters=_followed(block.parameters, new)) for block in self.blocks),
            pins=(
                *self.pins,
                *(replace(p, parameter=new[p.parameter]) for p in self.pins if p.parameter in new and p.axis == 0),
            ),
        )

    def kept_shapes(
        self, channels: Mapping[str, Iterable[int]] | None = None, blocks: Iterable[str] = ()
    ) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor that is left after removing these channels and blocks."""
        blocks = tuple(blocks)
        chosen = {name: tuple(indices) for name, indices in (channels or {}).items()}
        whole = self.with_biases(self.folds(chosen, blocks))
        gone = whole._block_parameters(blocks)
        shapes = {name: list(shape) for name, shape in whole.shapes.items() if name not in gone}
        for (name, axis), positions in whole.removed_positions(chosen, blocks).items():
            shapes[name][axis] -= len(positions)
        return {name: tuple(shape) for name, shape in shapes.items()}

    def macs(self, channels: Mapping[str, Iterable[int]] | None = None, blocks: Iterable[str] = ()) -> int:
        """Multiply-adds for the example inputs after removing these channels and blocks; exact."""
        blocks = tuple(blocks)
        shapes = self.kept_shapes(channels, blocks)
        left = (cost for cost in self.costs if not any(_inside(cost.module, block) for block in blocks))
        return sum(cost.macs(shapes) for cost in left)

    def parameters(self, channels: Mapping[str, Iterable[int]] | None = None, blocks: Iterable[str] = ()) -> int:
        """Number of parameters left (buffers not counted, unused parameters counted)."""
        shapes = self.kept_shapes(channels, blocks)
        return sum(prod(shape) for name, shape in shapes.items() if name not in self.buffers)

    def after(self, channels: Mapping[str, Iterable[int]], blocks: Iterable[str] = ()) -> "Structure":
        """The structure of the cut network: groups keep their names, positions are renumbered.

        Groups that are emptied or lie wholly in removed blocks are gone."""
        blocks = tuple(blocks)
        chosen = {name: self._checked(self.group(name), indices) for name, indices in channels.items()}
        whole = self.with_biases(self.folds(chosen, blocks))
        if whole is not self:
            return whole.after(chosen, blocks)
        removed = {name: frozenset(indices) for name, indices in chosen.items()}
        gone = self._block_parameters(blocks)
        positions = self.removed_positions(chosen, blocks)
        renumber = {key: _renumbering(self.shapes[key[0]][key[1]], lost) for key, lost in positions.items()}
        groups = (_shrunk_group(group, removed.get(group.name, frozenset()), gone, renumber) for group in self.channels)
        small = replace(
            self,
            shapes=self.kept_shapes(channels, blocks),
            buffers=tuple(name for name in self.buffers if name not in gone),
            channels=tuple(group for group in groups if group is not None),
            costs=tuple(cost for cost in self.costs if not any(_inside(cost.module, block) for block in blocks)),
            pins=tuple(pin for pin in self.pins if pin.parameter not in gone),
        )
        left = (block for block in self.blocks if not any(_inside(block.name, name) for name in blocks))
        return replace(small, blocks=tuple(small._block_now(block, gone) for block in left))

    def block_macs(self, name: str) -> int:
        """Multiply-adds of everything that runs inside the submodule `name`."""
        inside = (cost for cost in self.costs if _inside(cost.module, name))
        return sum(cost.macs(self.shapes) for cost in inside)

    def channel_macs(self, name: str) -> int:
        """Multiply-adds saved by removing one channel of the group `name` from the network as it is."""
        group = self.group(name)
        width = {(m.parameter, m.axis): len(m.indices[0]) for m in group.members}
        saved = 0
        for cost in self.costs:
            if any(key in width for key in cost.along):
                left = prod(self.shapes[name][axis] - width.get((name, axis), 0) for name, axis in cost.along)
                saved += cost.macs(self.shapes) - cost.positions * left
        return saved

    def explain(self, name: str) -> str:
        """Who shares each axis of the parameter or buffer `name`, or why it stays.

        `name` may also be a module or a glob such as "layer3.*.conv1": then all parameters and buffers that it means.

        Raises:
            CutError: the network has nothing of that name.
        """
        known = (*self.shapes, *(unused for unused in self.unused if unused not in self.shapes))
        if name not in known and (meant := matching(known, name)):
            return "\n".join(self._explain_one(each) for each in meant)
        if name not in known:
            raise CutError(f"no parameter, buffer or module {name!r}{nearest_name(name, (*known, *modules_of(known)))}")
        return self._explain_one(name)

    def _explain_one(self, name: str) -> str:
        if name in self.unused:
            return f"{name}: not used by the forward pass on the example inputs; left as it is"
        lines = [f"{name} {self.shapes[name]}"]
        for axis, size in enumerate(self.shapes[name]):
            lines += [f"  axis {axis} ({size}): {text}" for text in self._explain_axis(name, axis)]
        return "\n".join(lines)

    def _explain_axis(self, name: str, axis: int) -> list[str]:
        texts = []
        for group in self.channels:
            roles = [m.role for m in group.members if (m.parameter, m.axis) == (name, axis)]
            if roles:
                others = [f"{m.parameter}[{m.axis}]" for m in group.members if (m.parameter, m.axis) != (name, axis)]
                note = "" if group.exact else f"; not exact: {group.reason}"
                if group.exact and group.folds:
                    note = f"; a constant when zeroed, which moves into the bias of {', '.join(group.folds)}"
                texts.append(
                    f"{group.size} channels of group {group.name} ({group.kind}, {roles[0]}), "
                    f"shared with {', '.join(others) or 'nothing'}{note}"
                )
        pins = [pin for pin in self.pins if (pin.parameter, pin.axis) == (name, axis)]
        stay = [f"{pin.count} stay: {pin.reason}" + (f" ({pin.source})" if pin.source else "") for pin in pins]
        return texts + stay or ["not removable: no channel runs along it"]

    def _block_now(self, block: Block, gone: frozenset[str]) -> Block:
        own = tuple(name for name in block.parameters if name not in gone)
        return replace(block, parameters=own, macs=self.block_macs(block.name))

    def _block_parameters(self, blocks: Iterable[str]) -> frozenset[str]:
        names = [self.block(block).name for block in blocks]
        return frozenset(p for p in self.shapes if any(_inside(p, name) for name in names))

    @staticmethod
    def _checked(group: ChannelGroup, indices: Iterable[int]) -> tuple[int, ...]:
        chosen = tuple(sorted(set(indices)))
        if chosen and (chosen[0] < 0 or chosen[-1] >= group.size):
            raise CutError(f"group {group.name} has channels 0 to {group.size - 1}; got {chosen[0]} to {chosen[-1]}")
        return chosen


Named = TypeVar("Named", ChannelGroup, Block)


def _find(items: tuple[Named, ...], name: str, what: str) -> Named:
    for item in items:
        if item.name == name:
            return item
    raise CutError(f"no {what} {name!r}{nearest_name(name, [item.name for item in items])}")


def _inside(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def _ancestors(name: str) -> Iterator[str]:
    """The modules around the module `name`, the nearest first, without the network itself."""
    while name := name.rpartition(".")[0]:
        yield name


def _renumbering(size: int, removed: tuple[int, ...]) -> dict[int, int]:
    """Old position -> new position, for those that stay."""
    lost = set(removed)
    return {old: new for new, old in enumerate(p for p in range(size) if p not in lost)}


def _followed(names: tuple[str, ...], new: Mapping[str, str]) -> tuple[str, ...]:
    """The names, each followed by its new one if it has one."""
    return tuple(one for name in names for one in ((name, new[name]) if name in new else (name,)))


def _with_biases(group: ChannelGroup, new: Mapping[str, str]) -> ChannelGroup:
    """The group with a bias (weight -> bias in `new`) for each of those weights that make its channels."""
    members: list[Member] = []
    for member in group.members:
        members.append(member)
        if member.parameter in new and member.axis == 0:
            members.append(replace(member, parameter=new[member.parameter]))
    return replace(group, members=tuple(members)) if len(members) > len(group.members) else group


def _shrunk_group(
    group: ChannelGroup,
    removed: frozenset[int],
    gone: frozenset[str],
    renumber: Mapping[tuple[str, int], Mapping[int, int]],
) -> ChannelGroup | None:
    kept = [c for c in range(group.size) if c not in removed]
    members = []
    for member in group.members:
        if member.parameter not in gone:
            new = renumber.get((member.parameter, member.axis))
            owned = tuple(
                member.indices[c] if new is None else tuple(new[p] for p in member.indices[c] if p in new) for c in kept
            )
            members.append(replace(member, indices=owned))
    if not kept or not any(member.role != "in" for member in members):
        return None
    # A channel that shared all its positions with others that went is gone as well.
    left = [place for place in range(len(kept)) if all(member.indices[place] for member in members)]
    if len(left) < len(kept):
        members = [replace(m, indices=tuple(m.indices[place] for place in left)) for m in members]
    return replace(group, size=len(left), members=tuple(members)) if left else None
