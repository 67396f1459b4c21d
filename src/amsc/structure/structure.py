"""What tracing a network yields: channel groups, blocks, costs and pins, as frozen plain values."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, prod
from typing import TypeVar

from amsc.borrowing import InputSpec
from amsc.errors import CutError
from amsc.structure.after_cut import followed, handed_on, joined, renumbering, shrunk_group, with_biases
from amsc.structure.names import matching, modules_of, nearest_name
from amsc.structure.parts import (
    PRODUCERS,
    Block,
    BlockCall,
    ChannelGroup,
    LayerCost,
    Limit,
    Member,
    OutputLeaf,
    Pin,
    is_inside,
)

__all__ = [
    "MET",
    "PRODUCERS",
    "Block",
    "BlockCall",
    "ChannelGroup",
    "LayerCost",
    "Limit",
    "Member",
    "OutputLeaf",
    "Pin",
    "Structure",
    "keeps_shape",
]


MET = 10**9
"""The cost of a network that meets its limits to the last bit: billionths of the limit."""


@dataclass(frozen=True)
class Structure:
    """Which axes of a network live and die together, which blocks can go, what everything costs.

    `shapes` holds every parameter and buffer the forward pass used (first names only, buffers marked in `buffers`);
    `unused` those it did not touch. `limits` say what `cost` is; without any it is the multiply-adds."""

    inputs: InputSpec
    shapes: Mapping[str, tuple[int, ...]]
    buffers: tuple[str, ...]
    channels: tuple[ChannelGroup, ...]
    blocks: tuple[Block, ...]
    costs: tuple[LayerCost, ...]
    pins: tuple[Pin, ...]
    unused: tuple[str, ...] = field(default=())
    limits: tuple[Limit, ...] = field(default=())

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

    def channels_gone(
        self, channels: Mapping[str, Iterable[int]], blocks: Iterable[str] = ()
    ) -> dict[str, tuple[int, ...]]:
        """These channels (group name -> sorted indices), and all those that go with these blocks.

        What a plain convolution that goes reads, it hands on: of the group that it makes the same channels go, unless
        others are named."""
        blocks = tuple(blocks)
        gone = {name: self._checked(self.group(name), indices) for name, indices in channels.items()}
        for _ in blocks if gone else ():  # one may hand on what another hands on to it
            before = len(gone)
            for name in (name for name in blocks if self.block(name).kind == "plain"):
                gone = handed_on(self.channels, f"{name}.weight", gone) | gone
            if len(gone) == before:
                break
        return gone | {name: tuple(range(self.group(name).size)) for name in self._made_by(blocks)}

    def removed_positions(
        self, channels: Mapping[str, Iterable[int]], blocks: Iterable[str] = ()
    ) -> dict[tuple[str, int], tuple[int, ...]]:
        """(parameter, axis) -> sorted positions that go with these channels (group name -> indices).

        Parameters of the removed blocks are left out: they go whole; so are channels produced by nothing else."""
        blocks = tuple(blocks)
        gone, own = self._block_parameters(blocks), self._made_by(blocks)
        silent = self._block_parameters(block for block in blocks if self.block(block).kind != "plain")
        positions: dict[tuple[str, int], set[int]] = {}
        for name, chosen in self.channels_gone(channels, blocks).items():
            group = self.group(name)
            if name not in own and all(m.parameter in silent for m in group.members if m.role in PRODUCERS):
                continue  # nothing produces these channels any more; the block's stand-in has all of them
            for member in group.members:
                if member.parameter not in gone:
                    owned = positions.setdefault((member.parameter, member.axis), set())
                    owned.update(p for c in chosen for p in member.indices[c])
        return {key: tuple(sorted(owned)) for key, owned in positions.items() if owned}

    def folds(self, channels: Mapping[str, Sequence[int]], blocks: Iterable[str] = ()) -> tuple[str, ...]:
        """The layers that read these channels as constants, which move into their biases; sorted."""
        blocks = tuple(blocks)
        gone = self.channels_gone(channels, blocks)
        layers = {layer for group in self.channels if gone.get(group.name) for layer in group.folds}
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
            channels=tuple(with_biases(group, new) for group in self.channels),
            blocks=tuple(replace(block, parameters=followed(block.parameters, new)) for block in self.blocks),
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
        return int(self.costing(self.costs, channels, blocks))

    def costing(
        self,
        costs: Iterable[LayerCost],
        channels: Mapping[str, Iterable[int]] | None = None,
        blocks: Iterable[str] = (),
    ) -> float:
        """The sum of `costs` after removing these channels and blocks."""
        blocks = tuple(blocks)
        shapes = self.kept_shapes(channels, blocks)
        return sum(cost.at(shapes) for cost in _without(costs, blocks))

    def cost(self, channels: Mapping[str, Iterable[int]] | None = None, blocks: Iterable[str] = ()) -> int:
        """What counts towards the target after removing these channels and blocks: multiply-adds, or where there are
        `limits`, the largest share of a limit that is used, in billionths."""
        blocks = tuple(blocks)
        if not self.limits:
            return self.macs(channels, blocks)
        shapes = self.kept_shapes(channels, blocks)
        sums = (sum(cost.at(shapes) for cost in _without(limit.costs, blocks)) / limit.amount for limit in self.limits)
        return ceil(MET * max(sums))

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
        removed = {name: frozenset(indices) for name, indices in self.channels_gone(chosen, blocks).items()}
        gone = self._block_parameters(blocks)
        positions = self.removed_positions(chosen, blocks)
        renumber = {key: renumbering(self.shapes[key[0]][key[1]], lost) for key, lost in positions.items()}
        whole_groups = self.channels
        for name in blocks:
            if self.block(name).kind == "plain":
                whole_groups = joined(whole_groups, f"{name}.weight")
        groups = (shrunk_group(group, removed.get(group.name, frozenset()), gone, renumber) for group in whole_groups)
        small = replace(
            self,
            shapes=self.kept_shapes(channels, blocks),
            buffers=tuple(name for name in self.buffers if name not in gone),
            channels=tuple(group for group in groups if group is not None),
            costs=_without(self.costs, blocks),
            limits=tuple(replace(limit, costs=_without(limit.costs, blocks)) for limit in self.limits),
            pins=tuple(pin for pin in self.pins if pin.parameter not in gone),
        )
        left = [block for block in self.blocks if not any(is_inside(block.name, name) for name in blocks)]
        left = [block for block in left if block.kind != "plain" or keeps_shape(block.name, positions)]
        return replace(small, blocks=tuple(small._block_now(block, gone) for block in left))

    def block_macs(self, name: str) -> int:
        """Multiply-adds of everything that runs inside the submodule `name`."""
        return int(sum(cost.at(self.shapes) for cost in self.costs if is_inside(cost.module, name)))

    def channel_macs(self, name: str) -> int:
        """Multiply-adds saved by removing one channel of the group `name` from the network as it is."""
        return int(self.saved_by_channel(name, self.costs))

    def counted(self) -> tuple[LayerCost, ...]:
        """What falls, to first order, as `cost` does: of several limits those that are exceeded count, each by how far;
        if none is, the tightest."""
        if not self.limits:
            return self.costs
        shares = [limit.sum(self.shapes) / limit.amount for limit in self.limits]
        excess = [max(0.0, share - 1) for share in shares]
        if not any(excess):
            excess = [float(share == max(shares)) for share in shares]
        counted: dict[tuple[str, tuple[tuple[str, int], ...]], float] = defaultdict(float)
        for limit, over in zip(self.limits, excess, strict=True):
            for cost in limit.costs if over else ():
                counted[cost.module, cost.along] += MET * over / sum(excess) / limit.amount * cost.positions
        return tuple(LayerCost(module, positions, along) for (module, along), positions in counted.items())

    def saved_by_channel(self, name: str, costs: Iterable[LayerCost]) -> float:
        """How much of `costs` removing one channel of the group `name` from the network as it is saves."""
        width = {(m.parameter, m.axis): len(m.indices[0]) for m in self.group(name).members}
        saved: float = 0
        for cost in costs:
            if any(key in width for key in cost.along) and all(name in self.shapes for name, _ in cost.along):
                left = prod(self.shapes[name][axis] - width.get((name, axis), 0) for name, axis in cost.along)
                saved += cost.at(self.shapes) - cost.positions * left
        return saved

    def saved_by_block(self, name: str, costs: Iterable[LayerCost]) -> float:
        """How much of `costs` removing the block `name` from the network as it is saves: what it costs, and what it
        costs to read the channels that go with it."""
        costs = tuple(costs)
        return self.costing(costs) - self.costing(costs, {}, [name])

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

    def _made_by(self, blocks: Iterable[str]) -> tuple[str, ...]:
        """The groups that go wholly with these blocks."""
        return tuple(name for block in blocks for name in self.block(block).channels)

    def _block_parameters(self, blocks: Iterable[str]) -> frozenset[str]:
        names = [self.block(block).name for block in blocks]
        return frozenset(p for p in self.shapes if any(is_inside(p, name) for name in names))

    @staticmethod
    def _checked(group: ChannelGroup, indices: Iterable[int]) -> tuple[int, ...]:
        chosen = tuple(sorted(set(indices)))
        if chosen and (chosen[0] < 0 or chosen[-1] >= group.size):
            raise CutError(f"group {group.name} has channels 0 to {group.size - 1}; got {chosen[0]} to {chosen[-1]}")
        return chosen


def _without(costs: Iterable[LayerCost], blocks: Iterable[str]) -> tuple[LayerCost, ...]:
    """The costs of what does not lie in these blocks."""
    return tuple(cost for cost in costs if not any(is_inside(cost.module, block) for block in blocks))


Named = TypeVar("Named", ChannelGroup, Block)


def _find(items: tuple[Named, ...], name: str, what: str) -> Named:
    for item in items:
        if item.name == name:
            return item
    raise CutError(f"no {what} {name!r}{nearest_name(name, [item.name for item in items])}")


def keeps_shape(convolution: str, removed: Mapping[tuple[str, int], tuple[int, ...]]) -> bool:
    """Whether the same channels are removed from what this layer reads and from what it makes."""
    return removed.get((f"{convolution}.weight", 0)) == removed.get((f"{convolution}.weight", 1))


def _ancestors(name: str) -> Iterator[str]:
    """The modules around the module `name`, the nearest first, without the network itself."""
    while name := name.rpartition(".")[0]:
        yield name
