"""Repeated layers on one line: "layers.0.conv", "layers.1.conv", ... become "layers.0-11.conv (12 alike)"."""

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from amsc.words.amounts import ranges

__all__ = ["Alike", "alike", "name_together", "shortened"]

FEWEST_OF_A_SUFFIX = 3
"""`denselayer1`, `denselayer2`, ... are put together from so many on; `conv1` and `conv2` stay two lines."""


Line = tuple[tuple[str, ...], Hashable, tuple[int, ...]]
"""The parts of a name (text, number, text, ...), what must be equal to be alike, and the indices it stands for."""


@dataclass(frozen=True)
class Alike:
    """Names that differ in numbers only, as one `name`, and the indices of all of them in the given order."""

    name: str
    indices: tuple[int, ...]

    @property
    def label(self) -> str:
        """The name, with how many it stands for if that is more than one."""
        return self.name if len(self.indices) == 1 else f"{self.name} ({len(self.indices)} alike)"


def alike(names: Sequence[str], cells: Sequence[Hashable] | None = None) -> tuple[Alike, ...]:
    """`names` put together where they differ in one number at a time and have equal `cells`; first ones first."""
    same = cells if cells is not None else [None] * len(names)
    found: list[Line] = [(tuple(re.split(r"(\d+)", name)), same[i], (i,)) for i, name in enumerate(names)]
    longest = max((len(parts) for parts, _, _ in found), default=0)
    for position in range(longest - 2, 0, -2):  # numbers stand at odd positions
        found = _merged(found, position)
    return tuple(Alike("".join(parts), indices) for parts, _, indices in found)


def _merged(lines: list[Line], position: int) -> list[Line]:
    """`lines` put together where they differ in the number at `position` only."""
    families: dict[Hashable, list[Line]] = {}
    for line in lines:
        parts, cells, _ = line
        is_long = position < len(parts)
        key = (*parts[:position], None, *parts[position + 1 :]) if is_long else parts
        families.setdefault((key, cells, is_long), []).append(line)
    merged: list[Line] = []
    for family in families.values():
        parts = family[0][0]
        fewest = 2 if position < len(parts) and _is_whole(parts, position) else FEWEST_OF_A_SUFFIX
        if position >= len(parts) or len(family) < fewest:
            merged += family
            continue
        number = ranges({int(part[position]) for part, _, _ in family}).replace(", ", ",")
        indices = tuple(sorted(index for _, _, members in family for index in members))
        merged.append(((*parts[:position], number, *parts[position + 1 :]), family[0][1], indices))
    return sorted(merged, key=lambda line: line[2][0])


def _is_whole(parts: Sequence[str], position: int) -> bool:
    """Whether the number is all that stands between two dots."""
    before, after = parts[position - 1], parts[position + 1]
    return (not before or before.endswith(".")) and (not after or after[0] in ".[")


def name_together(names: Sequence[str], *, most: int = 3) -> str:
    """The names in one phrase, those that are alike put together, and no more than `most` of them."""
    return shortened([found.name for found in alike(list(dict.fromkeys(names)))], most=most)


def shortened(names: Sequence[str], *, most: int = 3) -> str:
    """The first `most` names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
