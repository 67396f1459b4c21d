"""Sizes and positions that a model's forward holds as constants do not follow a cut: found by trying."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from amsc.errors import CutError
from amsc.structure.cutting import after_removal
from amsc.structure.structure import ChannelGroup, Structure
from amsc.surgery.apply import apply_plan
from amsc.surgery.plan import plan_cut
from amsc.surgery.verification import verify

__all__ = ["cuttable"]

# The larger part of a network is tried first, so that what does not go together with it is what stays.
KINDS = ("filter", "hidden", "stream", "head", "head_dim")


def cuttable(model: nn.Module, structure: Structure, example_inputs: Any) -> Structure:
    """`structure` with every group marked inexact, and without every block, whose removal does not work.

    All channels of all exact groups but one of each are removed at once on a copy, then every second, then one of each;
    after that all outer blocks with them, the blocks inside others, and plain convolutions alone. What fails is divided
    until the groups are found that cannot be cut together with those that work: they are followed by
    `x.view(-1, 400)`, say, or share an attribute with others. Of alike layers one is tried for all when they fail
    together. Groups that can be cut together and not alone (the dimensions of keys and of values, where one attribute
    tells both) become one group, unit by unit, if two of them make up what works.
    """
    trial = _Trial(model, structure, example_inputs)
    groups = [group for group in structure.channels if group.exact and group.size > 1]
    alike: dict[tuple[int, str], list[str]] = {}
    for group in groups:
        alike.setdefault((KINDS.index(group.kind), _without_numbers(group)), []).append(group.name)
    good: list[str] = []
    reasons: dict[str, str] = {}
    families = list(map(alike.__getitem__, sorted(alike)))
    trial.add(good, reasons, [group.name for group in groups], families)
    pairs = trial.pair(good, reasons, families) if len(families) > 1 else []
    stuck: dict[str, str] = {}
    plain = [block.name for block in structure.blocks if block.kind == "plain"]
    outer = [block.name for block in structure.outer_blocks if block.kind != "plain"]
    inner = [block.name for block in structure.blocks if block.name not in (*outer, *plain)]
    for channels, blocks in ((good, outer), (good, inner), ([], plain)):
        trial.add_blocks(channels, stuck, blocks)
    if not reasons and not stuck and not pairs:
        return structure
    return replace(
        structure,
        channels=tuple(
            replace(group, exact=False, reason=reasons[group.name], folds=()) if group.name in reasons else group
            for group in _paired(structure.channels, pairs)
        ),
        blocks=tuple(block for block in structure.blocks if block.name not in stuck),
    )


class _Trial:
    """Cuts copies of a model and compares them with masked ones."""

    def __init__(self, model: nn.Module, structure: Structure, inputs: Any) -> None:
        self._model, self._structure, self._inputs = model, structure, inputs

    def add(self, good: list[str], reasons: dict[str, str], names: list[str], families: Sequence[list[str]]) -> None:
        """Extend `good` by those of the groups `names` that can be cut with it; `reasons` tells of the rest."""
        if not names or not self._failure([*good, *names], []):
            good += names
            return
        for family in families:
            self._add_family(good, reasons, family)

    def pair(self, good: list[str], reasons: dict[str, str], families: Sequence[list[str]]) -> list[tuple[str, str]]:
        """Groups of `good` that must be cut alike, two and two. Those that fail alone and have no partner leave `good`;
        `reasons` tells why."""
        left = [family for family in families if set(family) <= set(good)]
        alone = [family for family in left if self._fails_alone(family)]
        pairs: list[tuple[str, str]] = []
        while alone:
            family = alone.pop(0)
            partner = next((other for other in alone if self._go_together(family, other)), None)
            if partner is not None:
                alone.remove(partner)
                pairs += zip(family, partner, strict=True)
            else:
                reasons.update(dict.fromkeys(family, self._fails_alone(family)))
                good[:] = [name for name in good if name not in family]
        return pairs

    def _fails_alone(self, *families: list[str]) -> str:
        """Why the first or the last groups of alike ones cannot be cut without the others; "" if they can."""
        ends = ([family[0] for family in families], [family[-1] for family in families])
        return next(filter(None, (self._failure(names, [], steps=(2,)) for names in ends)), "")

    def _go_together(self, family: list[str], other: list[str]) -> bool:
        """Whether two families have a group of the same size for each other, and these work together."""
        sizes = [[self._structure.group(name).size for name in names] for names in (family, other)]
        return sizes[0] == sizes[1] and not self._fails_alone(family, other)

    def _add_family(self, good: list[str], reasons: dict[str, str], family: list[str]) -> None:
        """Alike groups: all at once, or if one of them fails with those before, none, or by halves."""
        if not self._failure([*good, *family], []):
            good += family
        elif why := self._failure([*good, family[0]], []):
            reasons.update(dict.fromkeys(family, why))
        else:
            middle = max(1, len(family) // 2)
            for half in (family[:middle], family[middle:]):
                self._add_family(good, reasons, half)

    def add_blocks(self, groups: Sequence[str], stuck: dict[str, str], blocks: list[str]) -> None:
        """Tell in `stuck` which of the blocks cannot be removed, together and with channels of the groups left."""
        good: list[str] = []
        left = [blocks]
        while left:
            some = left.pop()
            why = self._failure(groups, [*good, *some]) if some else ""
            if not why:
                good += some
            elif len(some) == 1:
                stuck[some[0]] = why
            else:
                left += [some[len(some) // 2 :], some[: len(some) // 2]]

    def _failure(self, groups: Iterable[str], blocks: list[str], steps: Sequence[int] = ()) -> str:
        """Why channels of each of `groups` (of every so many one) and all of `blocks` cannot be removed together; "" if
        they can."""
        left = {group.name: group.size for group in after_removal(self._structure, {}, blocks).channels}
        chosen = [name for name in groups if name in left]
        for step in steps or ((1, 2, max(left.values(), default=1)) if chosen else (1,)):
            channels = {name: range(0, left[name] - 1, step) for name in chosen if left[name] > 1}
            if not channels and not blocks:
                continue
            try:
                plan = plan_cut(self._structure, channels=channels, blocks=blocks)
                small = apply_plan(self._model, plan, self._inputs)
                verify(self._model, small, plan, self._inputs, num_random=0)
            except CutError as error:
                return str(error).split(". A size", 1)[0].split(". The cut model is not", 1)[0]
        return ""


def _paired(groups: Sequence[ChannelGroup], pairs: Sequence[tuple[str, str]]) -> tuple[ChannelGroup, ...]:
    """The groups, those of each pair as one: a unit of it is one of each."""
    by_name, partner = {group.name: group for group in groups}, dict(pairs)
    second = set(partner.values())
    return tuple(
        replace(
            group,
            members=(*group.members, *by_name[partner[group.name]].members),
            folds=tuple(dict.fromkeys((*group.folds, *by_name[partner[group.name]].folds))),
        )
        if group.name in partner
        else group
        for group in groups
        if group.name not in second
    )


def _without_numbers(group: ChannelGroup) -> str:
    """The same for the groups of alike layers."""
    return re.sub(r"\d+", "0", " ".join([group.name, *(member.parameter for member in group.members[:4])]))
