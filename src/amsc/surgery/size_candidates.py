"""Numbers in modules that may have to follow a cut, and what each may become."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import nn

from amsc.structure.parts import ChannelGroup, StoredSize
from amsc.surgery.attributes.following import new_number
from amsc.surgery.attributes.places import Place, label_of, number_at, whole_numbers
from amsc.surgery.attributes.tensors import has_own_sizes
from amsc.surgery.plan import AxisCut, CutPlan

__all__ = ["Candidate", "Change", "candidates"]

LEVELS = 3  # the module itself, what lies beside it, and one further out
MOST_SOURCES = 12


@dataclass(frozen=True)
class Change:
    """One way in which a number may follow: what it becomes, and what says so."""

    new: int
    size: StoredSize


@dataclass(frozen=True)
class Candidate:
    """A number that alike modules keep: the same place by name in each, and the same value; all follow alike.

    `options` are different things that may become of it, the most likely first; each holds a change for every place."""

    modules: tuple[str, ...]
    options: tuple[tuple[Change, ...], ...]


@dataclass(frozen=True)
class _Source:
    """An axis relative to a module: that of `parameter` (its name below the module `up` levels above)."""

    up: int
    parameter: str
    axis: int
    counts: bool


def candidates(
    model: nn.Module, small: nn.Module, plan: CutPlan, groups: Iterable[ChannelGroup] = ()
) -> tuple[Candidate, ...]:
    """Those of the numbers in `model` that the `plan` may change other than it did in `small`.

    `groups` tell which sources of a number make sense of each single channel; those come first.
    """
    gone = _single_channels(groups)
    old = dict(model.named_modules())
    families: dict[tuple[str, str, int], list[tuple[str, Place]]] = {}
    for name, module in small.named_modules():
        if name in old and type(module) is type(old[name]) and not has_own_sizes(module):
            for place, number in whole_numbers(old[name]):
                if number > 1 and number_at(module, place) is not None:
                    label = label_of(old[name], place)
                    families.setdefault((re.sub(r"\d+", "0", name), label, number), []).append((name, place))
    found = (_candidate(old, small, plan, key[2], places, gone) for key, places in families.items())
    return tuple(one for one in found if one.options)


def _candidate(
    old: dict[str, nn.Module],
    small: nn.Module,
    plan: CutPlan,
    number: int,
    places: list[tuple[str, Place]],
    gone: list[AxisCut],
) -> Candidate:
    now = tuple(number_at(small.get_submodule(name), place) for name, place in places)
    options: dict[tuple[int, ...], tuple[Change, ...]] = {}
    for source in _sources(places[0][0], number, plan, gone):
        option = tuple(_change(name, place, number, source, plan) for name, place in places)
        options.setdefault(tuple(change.new for change in option), option)
    stay = tuple(Change(number, StoredSize(name, place)) for name, place in places)
    options.setdefault(tuple(change.new for change in stay), stay)
    return Candidate(
        tuple(dict.fromkeys(name for name, _ in places)),
        tuple(option for news, option in options.items() if news != now),
    )


def _change(name: str, place: Place, number: int, source: _Source, plan: CutPlan) -> Change:
    parameter = ".".join(filter(None, (_above(name, source.up), source.parameter)))
    size = StoredSize(name, place, parameter, source.axis, source.counts)
    cut = next((cut for cut in plan.cuts if (cut.parameter, cut.axis) == (parameter, source.axis)), None)
    new = None if cut is None else new_number(number, cut, counts=source.counts)
    return Change(number if new is None else new, size)


def _sources(name: str, number: int, plan: CutPlan, gone: list[AxisCut]) -> list[_Source]:
    """The axes whose parts the number may count or measure, the likely ones first: those that make sense of every
    single channel, then those nearby."""
    seen: dict[tuple[str, int, bool], tuple[int, int, _Source]] = {}
    for up in range(min(LEVELS, name.count(".") + 2 if name else 1)):
        scope = _above(name, up)
        for cut in plan.cuts:
            if scope and not cut.parameter.startswith(f"{scope}."):
                continue
            inner = cut.parameter[len(scope) + 1 :] if scope else cut.parameter
            for counts in (True, False):
                key = (cut.parameter, cut.axis, counts)
                if key not in seen and new_number(number, cut, counts=counts) is not None:
                    against = _contradictions(number, cut, gone, counts=counts)
                    seen[key] = (against, up, _Source(up, inner, cut.axis, counts))
    ordered = sorted(seen.values(), key=lambda one: (one[0], one[1], one[2].parameter.count("."), one[2].axis))
    return [source for _, _, source in ordered[:MOST_SOURCES]]


def _above(name: str, levels: int) -> str:
    for _ in range(levels):
        name = name.rpartition(".")[0]
    return name


def _single_channels(groups: Iterable[ChannelGroup]) -> list[AxisCut]:
    """The cut of each axis of a group when its first channel goes alone."""
    return [
        AxisCut(member.parameter, member.axis, 0, member.indices[0], False)
        for group in groups
        if group.exact and group.size > 1
        for member in group.members
    ]


def _contradictions(number: int, cut: AxisCut, gone: list[AxisCut], *, counts: bool) -> int:
    """How many groups have channels on this axis of which one alone would leave parts of different sizes."""
    alone = (one.removed for one in gone if (one.parameter, one.axis) == (cut.parameter, cut.axis))
    cuts = (AxisCut(cut.parameter, cut.axis, cut.size, removed, False) for removed in alone)
    return sum(new_number(number, one, counts=counts) is None for one in cuts)
