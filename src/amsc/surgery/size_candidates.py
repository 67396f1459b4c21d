"""Numbers in modules that may have to follow a cut, and what each may become."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from amsc.structure.cutting import removed_positions
from amsc.structure.stored_sizes import follows_axis, follows_group
from amsc.structure.structure import ChannelGroup, StoredSize, Structure
from amsc.surgery.attributes.places import Place, label_of, number_at, whole_numbers
from amsc.surgery.attributes.tensors import has_own_sizes
from amsc.surgery.plan import CutPlan

__all__ = ["Candidate", "Change", "candidates"]

LEVELS = 3  # the module itself, what lies beside it, and one further out
MOST_SOURCES = 12


@dataclass(frozen=True)
class Change:
    """One way in which a number may follow: what it becomes, and what says so (its number is that before the cut)."""

    new: int
    size: StoredSize


@dataclass(frozen=True)
class Candidate:
    """A number that alike modules of one class keep: the same place by name in each, and the same value; all follow
    alike.

    `options` are different things that may become of it, the most likely first; each holds a change for every place."""

    modules: tuple[str, ...]
    options: tuple[tuple[Change, ...], ...]


@dataclass(frozen=True)
class _Source:
    """What a number may follow, as seen from a module: `axis` of `parameter`, its name below the module `up` levels
    above, or (a `kind`) the group of that kind which has channels there."""

    up: int
    parameter: str
    axis: int
    counts: bool = True
    kind: str = ""


def candidates(
    model: nn.Module, small: nn.Module, plan: CutPlan, structure: Structure | None = None
) -> tuple[Candidate, ...]:
    """Those of the numbers in `model` that may become something else than in `small`, which the `plan` made of it."""
    old = dict(model.named_modules())
    families: dict[tuple[str, type[nn.Module], str, int], list[tuple[str, Place]]] = {}
    for name, module in small.named_modules():
        if name in old and type(module) is type(old[name]) and not has_own_sizes(module):
            for place, number in whole_numbers(old[name]):
                if number > 1 and number_at(module, place) is not None:
                    key = (re.sub(r"\d+", "0", name), type(module), label_of(old[name], place), number)
                    families.setdefault(key, []).append((name, place))
    sources = _Sources(plan, structure)
    found = (_candidate(small, key[-1], places, sources) for key, places in families.items())
    return tuple(one for one in found if one.options)


def _candidate(small: nn.Module, number: int, places: list[tuple[str, Place]], sources: "_Sources") -> Candidate:
    now = [number_at(small.get_submodule(name), place) for name, place in places]
    ways = [
        [sources.change(name, place, number, source) for name, place in places]
        for source in sources.of([name for name, _ in places], number)
    ]
    ways.append([Change(number, StoredSize(name, place, number)) for name, place in places])
    options: dict[tuple[int | None, ...], tuple[Change, ...]] = {}
    for way in ways:
        values = tuple(current if one is None else one.new for one, current in zip(way, now, strict=True))
        options.setdefault(values, tuple(one for one in way if one is not None))
    return Candidate(
        tuple(dict.fromkeys(name for name, _ in places)),
        tuple(option for values, option in options.items() if values != tuple(now)),
    )


class _Sources:
    """Axes and groups that a plan cuts: what numbers near them may follow."""

    def __init__(self, plan: CutPlan, structure: Structure | None) -> None:
        self._cuts = {(cut.parameter, cut.axis): cut for cut in plan.cuts}
        self._plan, self._structure = plan, structure
        self._groups = [group for group in structure.channels if plan.channels.get(group.name)] if structure else []
        self._alone: dict[tuple[str, int], list[tuple[int, ...]]] = {}
        for member in (member for group in self._groups for member in group.members):
            self._alone.setdefault((member.parameter, member.axis), []).append(member.indices[0])
        self._known: dict[int, list[tuple[int, str, int, bool, str]]] = {}

    def of(self, modules: Sequence[str], number: int) -> list[_Source]:
        """The sources of a number that these modules keep, the likely ones first: a group of as many channels, an axis
        of that size, multiples and parts; the nearest before others."""
        found: dict[_Source, tuple[int, int]] = {}
        if number not in self._known:
            self._known[number] = [*self._of_groups(number), *self._of_axes(number)]
        for rank, parameter, axis, counts, kind in self._known[number]:
            for name in modules:
                if source := _seen_from(name, parameter, axis, counts, kind):
                    found[source] = min(found.get(source, (source.up, rank)), (source.up, rank))
        ordered = sorted(found, key=lambda one: (*found[one], one.parameter.count("."), one.axis))
        return ordered[:MOST_SOURCES]

    def change(self, name: str, place: Place, number: int, source: _Source) -> Change | None:
        """What the number becomes by the same source as seen from the module `name`; None if it has no such source."""
        parameter = ".".join(filter(None, (_above(name, source.up), source.parameter)))
        if source.kind:
            group = self._group_at(parameter, source.axis, source.kind, number)
            new = None if group is None else follows_group(number, group, self._removed)
            size = StoredSize(name, place, number, group=group.name if group is not None else "")
        else:
            cut = self._cuts.get((parameter, source.axis))
            new = None if cut is None else follows_axis(number, cut.size, cut.removed, counts=source.counts)
            size = StoredSize(name, place, number, "", parameter, source.axis, source.counts)
        return None if new is None else Change(new, size)

    @cached_property
    def _removed(self) -> Mapping[tuple[str, int], Sequence[int]]:
        if self._structure is None:
            return {}
        return removed_positions(self._structure, self._plan.channels, self._plan.blocks)

    def _of_groups(self, number: int) -> Iterator[tuple[int, str, int, bool, str]]:
        for group in self._groups:
            if number % group.size == 0:
                rank = 0 if number == group.size else 2
                yield from ((rank, m.parameter, m.axis, True, group.kind) for m in group.members)

    def _of_axes(self, number: int) -> Iterator[tuple[int, str, int, bool, str]]:
        for (parameter, axis), cut in self._cuts.items():
            for counts in (True, False) if number < cut.size else (True,):
                if follows_axis(number, cut.size, cut.removed, counts=counts) is not None and not self._contradicts(
                    number, parameter, axis, counts=counts
                ):
                    yield 1 if number == cut.size else 3, parameter, axis, counts, ""

    def _contradicts(self, number: int, parameter: str, axis: int, *, counts: bool) -> bool:
        """Whether a group has channels on this axis of which one alone would leave parts of different sizes."""
        size, alone = self._cuts[parameter, axis].size, self._alone.get((parameter, axis), ())
        return any(follows_axis(number, size, positions, counts=counts) is None for positions in alone)

    def _group_at(self, parameter: str, axis: int, kind: str, number: int) -> ChannelGroup | None:
        fitting = (
            group
            for group in (self._structure.channels if self._structure else ())
            if group.kind == kind and number % group.size == 0
            if any((m.parameter, m.axis) == (parameter, axis) for m in group.members)
        )
        return next(fitting, None)


def _seen_from(name: str, parameter: str, axis: int, counts: bool, kind: str) -> _Source | None:
    """The source as seen from the module `name`, if it is near enough."""
    for up in range(min(LEVELS, name.count(".") + 2 if name else 1)):
        scope = _above(name, up)
        if not scope or parameter.startswith(f"{scope}."):
            return _Source(up, parameter[len(scope) + 1 :] if scope else parameter, axis, counts, kind)
    return None


def _above(name: str, levels: int) -> str:
    for _ in range(levels):
        name = name.rpartition(".")[0]
    return name
