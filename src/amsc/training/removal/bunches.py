"""Choosing channels to meet a cost, cheapest first, in bunches that leave a number of channels that is allowed."""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from amsc.structure.costing import predicted_cost
from amsc.structure.rounding import Rounding
from amsc.structure.structure import Structure
from amsc.training.removal.removed import Leaf, channel_map

__all__ = ["ANY_NUMBER", "Bunch", "bunches", "bunches_above", "choose_channels", "sparing_last"]

Bunch = tuple[Leaf, ...]
"""Channels of one group, or of some that are tied, that go together or not at all."""
ANY_NUMBER = Rounding()


def bunches(structure: Structure, leaves: Iterable[Leaf], rounding: Rounding = ANY_NUMBER) -> Iterator[Bunch]:
    """The `leaves` in order, each held back until what would be left of its group is a number that `rounding` allows.

    Of tied groups as many leaves of each are held back as of the others. What is never released, the last channel of a
    group for one, is not yielded, nor are leaves in no group of `structure`. A bunch of a group may only go after those
    before it."""
    sizes = {group.name: group.size for group in structure.channels}
    allowed = {group.name: frozenset(rounding.smaller_sizes(group)) for group in structure.channels}
    tied = rounding.tied(sizes)
    held: dict[str, list[Leaf]] = {name: [] for name in sizes}
    for leaf in leaves:
        if leaf[0] not in sizes:
            continue
        held[leaf[0]].append(leaf)
        together = tied[leaf[0]]
        count = min(len(held[name]) for name in together)
        if count and all(sizes[name] - count in allowed[name] for name in together):
            yield tuple(chain.from_iterable(held[name][:count] for name in together))
            for name in together:
                sizes[name] -= count
                del held[name][:count]


def sparing_last(structure: Structure, leaves: Iterable[Leaf], rounding: Rounding = ANY_NUMBER) -> Iterator[Leaf]:
    """The leaves of `bunches`, one by one; without `rounding`, all but the last channel of every group."""
    return chain.from_iterable(bunches(structure, leaves, rounding))


def choose_channels(
    structure: Structure,
    ranking: Sequence[Leaf],
    target_cost: int,
    *,
    slack: float = 0.01,
    rounding: Rounding = ANY_NUMBER,
) -> list[Leaf]:
    """The first leaves of `ranking` (cheapest first) whose removal brings the cost to `target_cost` or just below.

    The shortest such prefix, from which the dearest leaves stay after all if the target is met without them. If that
    ends more than `slack` (a fraction of the target) below the target, its last leaf is exchanged for smaller steps.
    A group keeps a number of channels that `rounding` allows, at least one, and of its channels the dearest; leaves go
    in `bunches`. If even all leaves are not enough, all that may go are returned.

    Where a rounding that gives way ends more than `slack` below the target as well, groups get channels back in finer
    steps, the dearest first and only until it does not.
    """
    chosen = _in_bunches(structure, ranking, target_cost, slack, rounding)
    enough = (1 - slack) * target_cost
    while rounding.gives_way and rounding.to > 1 and predicted_cost(structure, channel_map(chosen)) < enough:
        rounding = rounding.finer()
        finer = list(bunches(structure, chosen, rounding))
        chosen = list(chain.from_iterable(_given_back(structure, finer, target_cost, enough=enough)))
    return chosen


def _in_bunches(
    structure: Structure, ranking: Sequence[Leaf], target_cost: int, slack: float, rounding: Rounding
) -> list[Leaf]:
    """As `choose_channels`, whose words say how, in the numbers of `rounding`."""
    allowed = list(bunches(structure, ranking, rounding))
    prefix = allowed[: _shortest_prefix(structure, allowed, target_cost)]
    chosen = _given_back(structure, prefix, target_cost)
    if not prefix or predicted_cost(structure, _channels(chosen)) >= (1 - slack) * target_cost:
        return list(chain.from_iterable(chosen))
    filled = _given_back(structure, _filled(structure, prefix[:-1], allowed, target_cost), target_cost)
    is_better = (
        predicted_cost(structure, _channels(chosen)) < predicted_cost(structure, _channels(filled)) <= target_cost
    )
    return list(chain.from_iterable(filled if is_better else chosen))


def _channels(chosen: Iterable[Bunch]) -> dict[str, tuple[int, ...]]:
    return channel_map(chain.from_iterable(chosen))


def _shortest_prefix(structure: Structure, ranked: Sequence[Bunch], target_cost: int) -> int:
    """How many of the first bunches must go, by bisection: costs only fall as more of them do."""
    low, high = 0, len(ranked)
    while low < high:
        middle = (low + high) // 2
        if predicted_cost(structure, _channels(ranked[:middle])) <= target_cost:
            high = middle
        else:
            low = middle + 1
    return low


def _given_back(
    structure: Structure, chosen: Sequence[Bunch], target_cost: int, *, enough: float = math.inf
) -> list[Bunch]:
    """`chosen` without those bunches, dearest (last) first, that need not go for the target; no more stay once the cost
    is `enough`."""
    kept, too_large = list(chosen), set[str]()
    for bunch in reversed(chosen):
        name = bunch[0][0]
        if name not in too_large:
            less = [other for other in kept if other != bunch]
            if (cost := predicted_cost(structure, _channels(less))) <= target_cost:
                kept = less
                if cost >= enough:
                    break
            else:
                too_large.add(name)  # as are all before it, which may not stay while it goes
    return kept


def _filled(structure: Structure, prefix: list[Bunch], ranked: Sequence[Bunch], target_cost: int) -> list[Bunch]:
    """`prefix`, then every next bunch that keeps the cost above the target, then the smallest step below it."""
    chosen = bunches_above(structure, ranked, target_cost, start=prefix)
    if predicted_cost(structure, _channels(chosen)) == target_cost:
        return chosen
    taken = set(chosen)
    first = {bunch[0][0]: bunch for bunch in reversed(ranked) if bunch not in taken}
    ends = {bunch: predicted_cost(structure, _channels([*chosen, bunch])) for bunch in first.values()}
    return [*chosen, max(ends, key=ends.__getitem__)] if ends else chosen


def bunches_above(
    structure: Structure, ranked: Sequence[Bunch], floor_cost: int, *, start: Sequence[Bunch] = ()
) -> list[Bunch]:
    """`start`, and of the other bunches in order those that can go as well without the cost falling below the floor.

    Of a group, all bunches after one that cannot go stay."""
    chosen, taken, too_large = list(start), set(start), set[str]()
    for bunch in ranked:
        name = bunch[0][0]
        if bunch in taken or name in too_large:
            continue
        if predicted_cost(structure, _channels([*chosen, bunch])) >= floor_cost:
            chosen.append(bunch)
        else:
            too_large.add(name)
    return chosen
