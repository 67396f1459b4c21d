"""What has been removed, counted in the dense network's own numbers, and how to choose what goes to meet a budget."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn

from amsc.structure.values import Structure

__all__ = [
    "Leaf",
    "Removal",
    "Shrink",
    "Shrunk",
    "channel_map",
    "choose_channels",
    "compose_removals",
    "leaves_above",
    "sparing_last",
]

Leaf = tuple[str, int]
"""A removable channel: the name of its group, and its index there."""


@dataclass(frozen=True)
class Removal:
    """Blocks and channels (group name -> sorted indices) that are gone."""

    blocks: tuple[str, ...] = ()
    channels: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.blocks or self.channels)


@dataclass(frozen=True)
class Shrunk:
    """A cut network: the new model, its structure, what slices tensors named after parameters (momentum, reference
    weights) in the same way, and the relative error that verifying the cut gave."""

    model: nn.Module
    structure: Structure
    slice_tensors: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    error: float


class Shrink(Protocol):
    """Cuts a copy of a model; given to training from above, since training itself never changes shapes."""

    def __call__(self, model: nn.Module, structure: Structure, removal: Removal) -> Shrunk:
        """`model` without what `removal` names (in the numbers of `structure`); it may be empty."""


def compose_removals(dense: Structure, first: Removal, second: Removal) -> Removal:
    """What is gone from the dense network after `first` and then `second`, whose indices count what `first` left.

    Channels of groups that lie wholly in a removed block are not listed: they go with it."""
    blocks = tuple(block.name for block in dense.blocks if block.name in {*first.blocks, *second.blocks})
    left = {group.name: group.size for group in dense.after({}, blocks).channels}
    channels = {}
    for name, size in left.items():
        gone = set(first.channels.get(name, ()))
        survivors = [index for index in range(size) if index not in gone]
        gone |= {survivors[index] for index in second.channels.get(name, ())}
        if gone:
            channels[name] = tuple(sorted(gone))
    return Removal(blocks, channels)


def channel_map(leaves: Iterable[Leaf]) -> dict[str, tuple[int, ...]]:
    """Group name -> sorted indices, for all `leaves`."""
    groups: dict[str, list[int]] = {}
    for name, index in leaves:
        groups.setdefault(name, []).append(index)
    return {name: tuple(sorted(indices)) for name, indices in groups.items()}


def sparing_last(structure: Structure, leaves: Iterable[Leaf]) -> Iterator[Leaf]:
    """The `leaves` in order, without the last channel of any group, and without those in no group of `structure`."""
    left = {group.name: group.size for group in structure.channels}
    for leaf in leaves:
        if left.get(leaf[0], 0) > 1:
            left[leaf[0]] -= 1
            yield leaf


def choose_channels(
    structure: Structure, ranking: Sequence[Leaf], target_macs: int, *, slack: float = 0.01
) -> list[Leaf]:
    """The first leaves of `ranking` (cheapest first) whose removal brings the MACs to `target_macs` or just below.

    The shortest such prefix, from which the dearest leaves stay after all if the target is met without them. If that
    ends more than `slack` (a fraction of the target) below the target, its last leaf is exchanged for smaller steps.
    A group keeps at least one channel. If even all leaves are not enough, all are returned.
    """
    allowed = list(sparing_last(structure, ranking))
    prefix = allowed[: _shortest_prefix(structure, allowed, target_macs)]
    chosen = _given_back(structure, prefix, target_macs)
    if not prefix or structure.macs(channel_map(chosen)) >= (1 - slack) * target_macs:
        return chosen
    filled = _given_back(structure, _filled(structure, prefix[:-1], ranking, target_macs), target_macs)
    macs = structure.macs(channel_map(filled))
    return filled if structure.macs(channel_map(chosen)) < macs <= target_macs else chosen


def _shortest_prefix(structure: Structure, leaves: Sequence[Leaf], target_macs: int) -> int:
    """How many of the first `leaves` must go, by bisection: MACs only fall as more of them do."""
    low, high = 0, len(leaves)
    while low < high:
        middle = (low + high) // 2
        if structure.macs(channel_map(leaves[:middle])) <= target_macs:
            high = middle
        else:
            low = middle + 1
    return low


def _given_back(structure: Structure, chosen: Sequence[Leaf], target_macs: int) -> list[Leaf]:
    """`chosen` without those leaves, dearest (last) first, that need not go for the target."""
    kept, too_large = list(chosen), set[str]()
    for leaf in reversed(chosen):
        if leaf[0] not in too_large:
            less = [other for other in kept if other != leaf]
            if structure.macs(channel_map(less)) <= target_macs:
                kept = less
            else:
                too_large.add(leaf[0])  # as are all others of its group
    return kept


def _filled(structure: Structure, prefix: list[Leaf], ranking: Sequence[Leaf], target_macs: int) -> list[Leaf]:
    """`prefix`, then every next leaf of the ranking that keeps the MACs above the target, then the smallest below."""
    chosen = leaves_above(structure, ranking, target_macs, start=prefix)
    if structure.macs(channel_map(chosen)) == target_macs:
        return chosen
    taken = set(chosen)
    rest = [leaf for leaf in ranking if leaf not in taken]
    first = {leaf[0]: leaf for leaf in reversed(list(sparing_last(structure, [*chosen, *rest]))[len(chosen) :])}
    ends = {leaf: structure.macs(channel_map([*chosen, leaf])) for leaf in first.values()}
    return [*chosen, max(ends, key=ends.__getitem__)] if ends else chosen


def leaves_above(
    structure: Structure, leaves: Sequence[Leaf], floor_macs: int, *, start: Sequence[Leaf] = ()
) -> list[Leaf]:
    """`start`, and of the other `leaves` in order those that can go as well without the MACs falling below the floor.

    A group keeps at least one channel. All channels of a group must save the same."""
    chosen, taken, too_large = list(start), set(start), set[str]()
    rest = [leaf for leaf in leaves if leaf not in taken]
    for leaf in list(sparing_last(structure, [*start, *rest]))[len(chosen) :]:
        if leaf[0] in too_large:
            continue
        if structure.macs(channel_map([*chosen, leaf])) >= floor_macs:
            chosen.append(leaf)
        else:
            too_large.add(leaf[0])
    return chosen
