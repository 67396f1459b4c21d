"""Which coordinates of a network's parameters make up which leaf, and which leaves lie under which block.

A channel that is normalised is reached through its scale and shift, one that is not through its filter and bias. A
leaf is either a channel that can be removed alone (of an exact inner group), or one position of a layer of a
block that cannot (say the last BatchNorm of a residual branch): the block's root needs it, the leaf has no penalty.
A plain convolution is one such leaf as a whole; it is empty where its kernel is that of Dirac.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from amsc.structure.names import holder
from amsc.structure.parts import PRODUCERS
from amsc.structure.structure import Block, ChannelGroup, Member, Structure

__all__ = ["Coordinates", "Normalisation", "Slices", "find_coordinates"]


@dataclass(frozen=True)
class Slices:
    """Position i of `axis` of `parameter` belongs to leaf `leaf[i]`, or to none where that is -1."""

    parameter: str
    axis: int
    leaf: tuple[int, ...]


@dataclass(frozen=True)
class Normalisation:
    """Positions of the affine parameter `parameter`, and the output slices of `producer` that each one normalises."""

    parameter: str
    positions: tuple[int, ...]
    producer: str
    axis: int
    sources: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Coordinates:
    """All leaves. Leaf i < len(channels) is the penalised channel `channels[i]` = (group, index); the others have no
    penalty of their own. `root[i]` is leaf i's block, an index into `blocks`, or -1; `normalised` names the
    parameters in `slices` that scale or shift a normalised channel, `kernels` those whose origin is not zero but the
    Dirac kernel."""

    slices: tuple[Slices, ...]
    channels: tuple[tuple[str, int], ...]
    root: tuple[int, ...]
    blocks: tuple[str, ...]
    normalised: frozenset[str]
    normalisations: tuple[Normalisation, ...]
    kernels: frozenset[str] = frozenset()


def find_coordinates(structure: Structure, bypassed: Collection[str] = (), *, streams: bool = False) -> Coordinates:
    """The leaves of `structure` and their blocks.

    Groups whose coordinates lie in several blocks, or that are normalised without a scale, get no leaves of their
    own, but where these blocks are dense layers they belong to the block that makes them, or to none: the channels of a
    dense layer are all under its root, wherever they are normalised. Blocks without parameters and blocks inside
    another one are left out, and plain convolutions without a normalisation behind them: their filters are leaves of
    their channels, whose origin is zero. Groups with a frozen scale or shift (in a buffer), which is left of a channel
    when all parameters are zero, get no leaves either, nor do dense layers that make such groups.

    Args:
        structure: what tracing found.
        bypassed: groups whose channels are read past their normalisation as well: filter, bias, scale and shift all
            are their coordinates, in the units they have.
        streams: give the channels of residual streams leaves as well, under no block. What all blocks on a stream add
            to it is in them then, so that the leaves under a block are no longer all of it: these are coordinates for
            gates, not for the penalty.
    """
    buffers = frozenset(structure.buffers)
    frozen = {group.name for group in structure.channels if _is_frozen(group, buffers)}
    free = [group for group in structure.channels if group.removable and group.name not in frozen]
    used = [block for block in structure.outer_blocks if not set(structure.unused).issuperset(block.parameters)]
    used = [block for block in used if frozen.isdisjoint(block.channels)]
    blocks = tuple(block for block in used if not block.kind.is_dirac)
    builder = _Builder(structure, blocks, bypassed)
    for group in free:
        if group.kind != "stream":
            builder.add_channels(group)
    for group in free if streams else ():
        if group.kind == "stream":
            builder.add_channels(group, root=-1)
    for index, block in enumerate(blocks):
        builder.add_rest_of_block(index, block)
    plain = tuple(block for block in used if block.kind.is_dirac and builder.slices.keys().isdisjoint(block.parameters))
    for index, block in enumerate(plain, start=len(blocks)):
        builder.add_whole(index, block)
    return Coordinates(
        tuple(Slices(name, axis, tuple(leaf)) for name, (axis, leaf) in builder.slices.items()),
        tuple(builder.channels),
        tuple(builder.root),
        tuple(block.name for block in (*blocks, *plain)),
        frozenset(name for name in builder.slices if builder.roles[name][0] == "affine"),
        builder.normalisations,
        frozenset(f"{block.name}.weight" for block in plain),
    )


class _Builder:
    """Gives out leaf numbers, first to channels, then to what is left of the blocks."""

    def __init__(self, structure: Structure, blocks: tuple[Block, ...], bypassed: Collection[str]) -> None:
        self.shapes = structure.shapes
        self.maker = {name: index for index, block in enumerate(blocks) for name in block.channels}
        self.bypassed = bypassed
        self.roles = dict(_roles(structure))
        self.normalisations = tuple(_normalisations(structure, bypassed)) + tuple(
            _pinned_normalisations(structure, self.roles)
        )
        used = set(structure.shapes) - set(structure.unused)
        self.block_of = {name: index for index, block in enumerate(blocks) for name in block.parameters if name in used}
        self.slices: dict[str, tuple[int, list[int]]] = {}
        self.channels: list[tuple[str, int]] = []
        self.root: list[int] = []
        self.silent: dict[str, set[int]] = {}  # output slices that zero coordinates elsewhere make mute

    def add_channels(self, group: ChannelGroup, root: int | None = None) -> None:
        """One leaf for each channel of `group`, if the group can be penalised; under `root` whatever the blocks are."""
        members = _coordinate_members(group, list(self.shapes), group.name in self.bypassed)
        roots = {self.block_of.get(member.parameter, -1) for member in members} if root is None else {root}
        if not members:
            return
        if group.name in self.maker:
            roots = {self.maker[group.name]}
        elif len(roots) > 1 and roots <= {-1, *self.maker.values()}:  # dense layers read it; each normalises it anew
            roots = {self.block_of.get(member.parameter, -1) for member in group.members if member.role == "out"}
        if len(roots) != 1 or any(self.roles[member.parameter][1] != member.axis for member in members):
            return
        if any(self._is_taken(member) for member in members):  # by a group that overlaps: the heads, before dimensions
            return
        first = len(self.root)
        for member in members:
            leaf = self._leaf_numbers(member.parameter)
            for channel, positions in enumerate(member.indices):
                for position in positions:
                    leaf[position] = first + channel
        for producer in (member for member in group.members if member.role == "out"):
            self._silence(producer.parameter, producer.indices)
        self.channels += [(group.name, channel) for channel in range(group.size)]
        self.root += [*roots] * group.size

    def add_rest_of_block(self, index: int, block: Block) -> None:
        """A leaf for every (module, position) in `block` that no channel has taken and the block's zero needs."""
        order = {name: i for i, name in enumerate(block.parameters) if self.block_of.get(name) == index}
        for norm in self.normalisations:
            # one that comes before its producer (pre-activation) does not silence it
            if norm.producer in order and order[norm.producer] < order.get(norm.parameter, -1):
                self._silence(norm.producer, norm.sources)
        leaves: dict[tuple[str, int], int] = {}
        for name in order:
            for position in self._free_positions(name):
                leaf = leaves.setdefault((holder(name), position), len(self.root))
                self.root += [index] * (leaf == len(self.root))
                self._leaf_numbers(name)[position] = leaf

    def add_whole(self, index: int, block: Block) -> None:
        """One leaf of all that `block` has."""
        for name in block.parameters:
            leaf = self._leaf_numbers(name)
            leaf[:] = [len(self.root)] * len(leaf)
        self.root.append(index)

    def _is_taken(self, member: Member) -> bool:
        leaf = self.slices.get(member.parameter, (0, []))[1]
        return any(leaf[position] >= 0 for owned in member.indices for position in owned) if leaf else False

    def _free_positions(self, parameter: str) -> list[int]:
        """Positions that no leaf has taken and that are not mute already."""
        leaf = self.slices[parameter][1] if parameter in self.slices else [-1] * self._size(parameter)
        silent = self.silent.get(parameter, ())
        return [i for i, taken in enumerate(leaf) if taken < 0 and i not in silent]

    def _silence(self, parameter: str, positions: Iterable[tuple[int, ...]]) -> None:
        self.silent.setdefault(parameter, set()).update(i for owned in positions for i in owned)

    def _size(self, parameter: str) -> int:
        shape = self.shapes[parameter]
        return shape[self.roles[parameter][1]] if shape else 1

    def _leaf_numbers(self, parameter: str) -> list[int]:
        fresh = (self.roles[parameter][1], [-1] * self._size(parameter))
        return self.slices.setdefault(parameter, fresh)[1]


def _is_frozen(group: ChannelGroup, buffers: Collection[str]) -> bool:
    """Whether one of the buffers makes the channels, or scales or shifts them."""
    return any(member.role in PRODUCERS and member.parameter in buffers for member in group.members)


def _coordinate_members(group: ChannelGroup, order: Sequence[str], is_bypassed: bool) -> list[Member]:
    """The members whose zeros make the channel zero: scale and shift where it is normalised, otherwise filter and bias.

    A bias after the last normalisation (of a depthwise convolution, say) has to be zero as well. None at all where the
    channel is normalised without a scale: a mean that stays would keep it alive.
    """
    by_role: dict[str, list[Member]] = {}
    for member in group.members:
        by_role.setdefault(member.role, []).append(member)
    elements = by_role.get("element", [])
    if "affine" not in by_role:
        return [] if "statistic" in by_role else by_role.get("out", []) + elements
    if is_bypassed:
        return by_role.get("out", []) + by_role["affine"] + elements
    last = max(order.index(member.parameter) for member in by_role["affine"])
    late = [m for m in by_role.get("out", []) if m.parameter.endswith("bias") and order.index(m.parameter) > last]
    return by_role["affine"] + late + elements


def _roles(structure: Structure) -> Iterator[tuple[str, tuple[str, int]]]:
    """What every parameter is ("out", "affine" or "element") and along which axis its leaves lie.

    A parameter that is in no group on its output axis is a scale or shift if its module's weight has one axis.
    """
    known: dict[str, tuple[str, int]] = {}
    for group in structure.channels:
        for member in group.members:
            if member.role in PRODUCERS:
                known.setdefault(member.parameter, (member.role, member.axis))
    for name in structure.shapes:
        if name not in structure.buffers:
            weight = structure.shapes.get(_sibling(name, "weight"), ())
            yield name, known.get(name, ("affine" if len(weight) == 1 else "out", 0))


def _normalisations(structure: Structure, bypassed: Collection[str]) -> Iterator[Normalisation]:
    """For every affine member the producer in its group: the nearest weight before it, or else the first after it."""
    order = {name: index for index, name in enumerate(structure.shapes)}
    for group in (group for group in structure.channels if group.name not in bypassed):
        weights = [m for m in group.members if m.role == "out" and len(structure.shapes[m.parameter]) > 1]
        weights.sort(key=lambda member: order[member.parameter])
        for affine in (m for m in group.members if m.role == "affine" and weights):
            before = [w for w in weights if order[w.parameter] < order[affine.parameter]]
            producer = before[-1] if before else weights[0]
            pairs = [(p, producer.indices[c]) for c, positions in enumerate(affine.indices) for p in positions]
            positions, sources = zip(*pairs, strict=True)
            yield Normalisation(affine.parameter, positions, producer.parameter, producer.axis, sources)


def _pinned_normalisations(structure: Structure, roles: Mapping[str, tuple[str, int]]) -> Iterator[Normalisation]:
    """The same for normalisations whose channels are in no group: the nearest weight before with as many outputs."""
    grouped = {member.parameter for group in structure.channels for member in group.members if member.role == "affine"}
    weights: list[str] = []
    for name, (role, axis) in roles.items():
        shape = structure.shapes[name]
        if role == "out" and len(shape) > 1:
            weights.append(name)
        elif role == "affine" and name not in grouped and shape:
            fitting = [w for w in weights if structure.shapes[w][roles[w][1]] == shape[axis]]
            sources = tuple((i,) for i in range(shape[axis]))
            if fitting:
                yield Normalisation(name, tuple(range(shape[axis])), fitting[-1], roles[fitting[-1]][1], sources)


def _sibling(parameter: str, name: str) -> str:
    """The name of the parameter or buffer `name` in the module of `parameter`."""
    return f"{holder(parameter)}.{name}".removeprefix(".")
