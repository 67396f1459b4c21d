"""Whole numbers that modules keep, and what becomes of them when channels go."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from amsc.structure.parts import ChannelGroup, StoredSize

__all__ = ["Positions", "follows", "follows_axis", "follows_group", "sizes_after"]

# (parameter, axis) -> positions that go
Positions = Mapping[tuple[str, int], Sequence[int]]


def sizes_after(
    sizes: Sequence[StoredSize],
    groups: Sequence[ChannelGroup],
    shapes: Mapping[str, tuple[int, ...]],
    removed: Positions,
) -> tuple[StoredSize, ...]:
    """The sizes with the numbers that they have once these positions are gone."""
    by_name = {group.name: group for group in groups}
    numbers = (follows(size, by_name, shapes, removed) for size in sizes)
    return tuple(size if new is None else replace(size, number=new) for size, new in zip(sizes, numbers, strict=True))


def follows(
    size: StoredSize, groups: Mapping[str, ChannelGroup], shapes: Mapping[str, tuple[int, ...]], removed: Positions
) -> int | None:
    """What the number becomes; None if what it stands for is no longer one number."""
    if size.group:
        return follows_group(size.number, groups[size.group], removed) if size.group in groups else size.number
    gone = removed.get((size.parameter, size.axis), ())
    if not gone:
        return size.number
    return follows_axis(size.number, shapes[size.parameter][size.axis], gone, counts=size.counts)


def follows_group(number: int, group: ChannelGroup, removed: Positions) -> int | None:
    """What becomes of so many times the channels of a group; None if it is no multiple of them.

    A channel is gone when it has no position left on one of its axes."""
    if number % group.size:
        return None
    gone = {(m.parameter, m.axis): frozenset(removed.get((m.parameter, m.axis), ())) for m in group.members}
    left = sum(
        all(not gone[m.parameter, m.axis].issuperset(m.indices[channel]) for m in group.members)
        for channel in range(group.size)
    )
    return number // group.size * left


def follows_axis(number: int, size: int, removed: Sequence[int], *, counts: bool) -> int | None:
    """What becomes of the number of equal parts of an axis if it `counts` them, else of the size of each; None if parts
    of different sizes are left, or it never fell into such parts. A part may go whole.

    >>> follows_axis(2, 6, (3, 4, 5), counts=True), follows_axis(3, 6, (1, 4), counts=False)
    (1, 2)
    """
    if number < 1 or size % number:
        return None
    length = size // number if counts else number
    left = [length] * (size // length)
    for position in removed:
        left[position // length] -= 1
    parts = [part for part in left if part]
    if len(set(parts)) != 1:
        return None
    return len(parts) if counts else parts[0]
