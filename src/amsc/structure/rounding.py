"""How many channels may be left in a group: numbers that hardware likes, and no fewer than so many."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import gcd, lcm

from amsc.errors import SettingsError
from amsc.structure.cutting import removed_positions
from amsc.structure.structure import ChannelGroup, Structure, check_structure

__all__ = ["LIKED", "Rounding", "round_channels"]

LIKED = 8
"""What `round_to="auto"` rounds to: onnxruntime and oneDNN compute blocks of 8 or 16 channels, and fall back to slower
kernels for some numbers between."""
FINE = 4
"""Where rounding gives way, up to so many times a smaller power of two may be left as well."""


@dataclass(frozen=True)
class Rounding:
    """What is left of a group that loses channels: a multiple of `to` positions on each of its axes, at least `least`
    and this `share` of them, and of the groups named in `minima` at least so many.

    A channel may own several positions of an axis (a head of 64, 16 inputs after a reshape): positions count, not
    channels. One channel is always left. A group too small to lose any stays whole.

    A rounding that `gives_way` never keeps a cost from being reached. Where so little is left that multiples of `to`
    would leave no choice, numbers are finer: up to four times a smaller power of two, which with 8 makes 1, 2, 3, 4, 6,
    8, 12, 16, 24, 32, 40 and so on (from 2 on, at most a half more from each to the next), and the least is always
    allowed. Heads count one by one. And where such numbers would end far below a cost, some groups are left a `finer`
    one (see `choose_channels`).

    Groups named together in `ties` lose channels together, and keep as many as each other.

    Raises:
        SettingsError: one of the numbers is not a whole number above zero.
    """

    to: int = 1
    least: int = 1
    minima: tuple[tuple[str, int], ...] = ()
    share: float = 0.0
    gives_way: bool = False
    ties: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        for name, value in (("to", self.to), ("least", self.least), *self.minima):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise SettingsError(f"{name}: expected a whole number, 1 or more; got {value!r}")

    @property
    def keeps_some(self) -> bool:
        """Whether more than one channel of a group may have to stay."""
        return (self.to > 1 and not self.gives_way) or self.least > 1 or bool(self.minima) or self.share > 0

    def finer(self) -> "Rounding":
        """The same with half the multiple: it allows all numbers that this one allows."""
        return replace(self, to=max(1, self.to // 2))

    def step(self, group: ChannelGroup) -> int:
        """The number of channels of `group` that can be left is a multiple of this (or a small one, see above)."""
        if group.kind == "head" and self.gives_way:
            return 1
        if group.kind == "head_dim":
            return self.to  # in each head, so that it holds however many heads are left
        return lcm(*(self.to // gcd(self.to, width) for width in _widths(group)))

    def smaller_sizes(self, group: ChannelGroup) -> Sequence[int]:
        """The numbers of channels that `group` can be cut to, its own size not among them; empty if none can go."""
        step, width = self.step(group), min(_widths(group))
        least = max([self.least, *(number for name, number in self.minima if name == group.name)])
        fewest = max(1, -(-least // width), math.ceil(self.share * group.size))
        if not self.gives_way:
            return range(-(-fewest // step) * step, group.size, step)
        if fewest >= group.size:
            return ()
        small = (size for size in range(fewest + 1, min(FINE * step, group.size)) if _is_fine(size))
        return (fewest, *small, *range((max(fewest, FINE * step - 1) // step + 1) * step, group.size, step))

    def fewest(self, group: ChannelGroup) -> int:
        """How few of its channels can be left: all of them where it may lose none."""
        sizes = self.smaller_sizes(group)
        return sizes[0] if group.removable and sizes else group.size

    def tied(self, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Of these groups those that lose channels with each, itself among them."""
        present = dict.fromkeys(names)
        alone = {name: (name,) for name in present}
        together = [tuple(name for name in tie if name in present) for tie in self.ties]
        return alone | {name: tie for tie in together for name in tie}

    def most_to_go(self, group: ChannelGroup, count: int) -> int:
        """How many of `count` channels that could go do go; `count` may be all of the group."""
        fitting = [size for size in self.smaller_sizes(group) if size >= group.size - count]
        return group.size - fitting[0] if fitting else 0


def _is_fine(number: int) -> bool:
    """Whether it is no more than so many times the largest power of two in it."""
    return number <= FINE * (number & -number)


def _widths(group: ChannelGroup) -> set[int]:
    """How many positions a channel owns on the axes of the group."""
    return {max(1, len(member.indices[0])) for member in group.members if member.indices} or {1}


def round_channels(
    structure: Structure, channels: Mapping[str, Iterable[int]], *, to: int = 8, least: int = 1
) -> dict[str, tuple[int, ...]]:
    """Those of the removals `channels` (group name -> indices) after which every group has a multiple of `to` left.

    Each group gives back the last ones named, so name first what may rather go. What is left of a group are multiples
    of positions on its axes, at least `least` of them (see `Rounding`); groups that cannot lose any are not listed.

        plan_cut(structure, channels=round_channels(structure, {"conv1": ranked[:20]}, to=8))

    Raises:
        CutError: a group or index does not exist.
        SettingsError: `to` or `least` is not a whole number above zero.
        ModelError: `structure` is none.
    """
    check_structure(structure)
    rounding = Rounding(to, least)
    rounded = {}
    for name, indices in channels.items():
        group, named = structure.group(name), list(dict.fromkeys(indices))
        removed_positions(structure, {name: named})  # refuses indices that do not exist
        going = named[: rounding.most_to_go(group, len(named))]
        if going:
            rounded[name] = tuple(sorted(going))
    return rounded
