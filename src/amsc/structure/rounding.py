"""How many channels may be left in a group: multiples that hardware likes, and no fewer than so many."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import gcd, lcm

from amsc.errors import SettingsError
from amsc.structure.cutting import removed_positions
from amsc.structure.structure import ChannelGroup, Structure, check_structure

__all__ = ["Rounding", "round_channels"]


@dataclass(frozen=True)
class Rounding:
    """What is left of a group that loses channels: a multiple of `to` positions on each of its axes, at least `least`
    and this `share` of them, and of the groups named in `minima` at least so many.

    A channel may own several positions of an axis (a head of 64, 16 inputs after a reshape): positions count, not
    channels. One channel is always left. A group too small to lose any stays whole.

    Raises:
        SettingsError: one of the numbers is not a whole number above zero.
    """

    to: int = 1
    least: int = 1
    minima: tuple[tuple[str, int], ...] = ()
    share: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("to", self.to), ("least", self.least), *self.minima):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise SettingsError(f"{name}: expected a whole number, 1 or more; got {value!r}")

    def step(self, group: ChannelGroup) -> int:
        """The number of channels of `group` that can be left is a multiple of this."""
        if group.kind == "head_dim":
            return self.to  # in each head, so that it holds however many heads are left
        return lcm(*(self.to // gcd(self.to, width) for width in _widths(group)))

    def smaller_sizes(self, group: ChannelGroup) -> range:
        """The numbers of channels that `group` can be cut to, its own size not among them; empty if none can go."""
        step, width = self.step(group), min(_widths(group))
        least = max([self.least, *(number for name, number in self.minima if name == group.name)])
        fewest = max(1, -(-least // width), math.ceil(self.share * group.size))
        return range(-(-fewest // step) * step, group.size, step)

    def most_to_go(self, group: ChannelGroup, count: int) -> int:
        """How many of `count` channels that could go do go; `count` may be all of the group."""
        fitting = [size for size in self.smaller_sizes(group) if size >= group.size - count]
        return group.size - fitting[0] if fitting else 0


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
