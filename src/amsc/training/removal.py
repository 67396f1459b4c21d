"""What has been removed, counted in the dense network's own numbers, and how to choose what goes to meet a budget."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from typing import Protocol

from torch import Tensor, nn

from amsc.structure.values import Structure

__all__ = ["Leaf", "Removal", "Shrink", "Shrunk", "channel_map", "choose_channels", "compose_removals", "sparing_last"]

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

    The shortest such prefix, unless it ends more than `slack` (a fraction of the target) below the target: then
    its last few leaves are exchanged for one or two others that end as close below as possible. A group keeps at
    least one channel. If even all of them are not enough, all are returned.
    """
    allowed = list(sparing_last(structure, ranking))
    count = _shortest_prefix(structure, allowed, target_macs)
    best = allowed[:count]
    best_macs = structure.macs(channel_map(best))
    for length in range(count - 1, max(-1, count - 8), -1):
        if (1 - slack) * target_macs <= best_macs:
            break
        for chosen in _completions(structure, allowed[:length], ranking):
            macs = structure.macs(channel_map(chosen))
            if best_macs < macs <= target_macs:
                best, best_macs = chosen, macs
    return best


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


def _completions(structure: Structure, prefix: list[Leaf], ranking: Sequence[Leaf]) -> Iterator[list[Leaf]]:
    """`prefix` and one or two more leaves, for every choice of their groups: the first of each in the ranking."""
    taken = set(prefix)
    free = [
        leaf
        for leaf in sparing_last(structure, [*prefix, *(r for r in ranking if r not in taken)])
        if leaf not in taken
    ]
    by_group: dict[str, list[Leaf]] = {}
    for leaf in free:
        by_group.setdefault(leaf[0], []).append(leaf)
    yield prefix
    yield from ([*prefix, leaves[0]] for leaves in by_group.values())
    for pair in combinations_with_replacement(by_group, 2):
        wanted = Counter(pair)
        if all(len(by_group[name]) >= count for name, count in wanted.items()):
            yield [*prefix, *(leaf for name, count in wanted.items() for leaf in by_group[name][:count])]
