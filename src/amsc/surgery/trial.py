"""Sizes and positions that a model's forward holds as constants do not follow a cut: found by trying."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, combinations, count, cycle
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from amsc.borrowing import borrowed, copied, copied_inputs, example_calls, run_model
from amsc.errors import AmscError, ModelError
from amsc.structure.structure import ChannelGroup, Structure, check_structure
from amsc.surgery.attempts import (
    Attempts,
    Share,
    Unit,
    all_but_one,
    different_shares,
    every_second,
    little_garbage,
    the_first,
)
from amsc.surgery.inputs import smaller

__all__ = ["cuttable", "separating"]

# The larger part of a network is tried first, so that what does not go together with it is what stays.
KINDS = ("filter", "hidden", "stream", "head", "head_dim")

Family = tuple[Unit, ...]


def cuttable(model: nn.Module, structure: Structure, example_inputs: Any) -> Structure:
    """`structure` with every group marked as not removable, and without every block, whose removal does not work.

    Groups and blocks go from copies, and what is left is compared with the masked network:

    - All groups together. First all channels but one go from each, then a different number from each: a cut that needs
      the same number from two groups fails. What fails is divided until the groups are found that cannot be cut with
      the others (`x.view(-1, 400)` follows them, say). Where alike layers fail together, the first and the last are
      tried for all.
    - Blocks, with all groups. For any two kinds of block some cut takes the one and leaves the other, and so for every
      second block of a kind and the rest; for any two blocks, where blocks hold the same tensor. Then go all outer
      blocks, and all blocks inside others.
    - Plain convolutions, without any channel: all of them, then as the blocks above.
    - Groups that no proof covers (see `with_inexact`), with all the rest: only whether the network runs.

    Groups that can be cut together and not alone (the dimensions of keys and of values, where one attribute tells both)
    become one group, unit by unit, if two of them make up what works.

    This is done on a corner of images where the model runs on it. What is left at the end is tried on the example
    inputs as they are: their shapes alone where the forward asks for no values. If that fails, all is tried on them.

    Raises:
        ModelError: `model` is no module, or `structure` is none.
        InputError: forward fails on `example_inputs`.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"expected a torch.nn.Module, got {type(model).__name__}; write cuttable(model, structure, x)")
    check_structure(structure)
    with little_garbage():
        corner = _runnable(model, smaller(example_inputs), example_inputs)
        if corner is not None:
            found = _Trial(model, structure, Attempts(model, structure, corner))
            found.run()
            result = found.result()
            whole = replace(structure, sizes=result.sizes)
            if found.holds_for(Attempts(model, whole, example_inputs)):
                return result
        found = _Trial(model, structure, Attempts(model, structure, example_inputs))
        found.run()
        if found.is_empty:  # as nothing works on inputs that the model does not take
            _run_all(copied(model), example_inputs)
        return found.result()


def separating(number: int) -> list[frozenset[int]]:
    """The fewest sets of the numbers below `number` such that for any two numbers one holds the first and not the
    second: each number lies in another half of the sets (Sperner's theorem)."""
    if number < 2:
        return [frozenset([0])] if number else []
    num_sets = next(size for size in count(2) if math.comb(size, size // 2) >= number)
    words = list(zip(range(number), combinations(range(num_sets), num_sets // 2), strict=False))
    return [frozenset(place for place, word in words if one in word) for one in range(num_sets)]


class _Trial:
    """What of a structure is left while it is tried, and why the rest is not."""

    def __init__(self, model: nn.Module, structure: Structure, attempts: Attempts) -> None:
        self._structure, self._attempts = structure, attempts
        self._share_tensors = _share_tensors(model, [block.name for block in structure.outer_blocks])
        self._likeness: dict[Unit, tuple[int, str]] = {}
        self._groups, self._outer, self._inner, self._plain = list[Unit](), list[Unit](), list[Unit](), list[Unit]()
        self._unproven: list[Unit] = []
        for group in structure.channels:
            if group.removable and group.size > 1:
                alike = self._unproven if group.unproven else self._groups
                alike.append(Unit((group.name,)))
                self._likeness[alike[-1]] = (KINDS.index(group.kind), _without_numbers(group))
        outer = {block.name for block in structure.outer_blocks}
        for block in structure.blocks:
            alike = self._plain if block.kind.is_dirac else self._outer if block.name in outer else self._inner
            alike.append(Unit(blocks=(block.name,)))
            self._likeness[alike[-1]] = (len(KINDS), f"{block.kind} {_zeros(block.name)}")
        self._reasons: dict[Unit, str] = {}

    def run(self) -> None:
        """Try everything."""
        self._try_groups()
        for tried, share in zip(self._apart([*self._outer, *self._inner]), cycle((every_second, all_but_one))):
            self._divide(self._left(tried), share, self._groups)
        self._divide(self._left(self._outer), all_but_one, self._groups)
        self._divide(self._left(self._inner), every_second, self._groups)
        for tried in (self._plain, *self._apart(self._plain)):
            self._divide(self._left(tried), all_but_one)
        self._try_unproven()

    def holds_for(self, attempts: Attempts) -> bool:
        """Whether what is left can go in other attempts as well."""
        return all(attempts.fits(units, every_second) for units in (self._groups, self._left(self._outer)) if units)

    @property
    def is_empty(self) -> bool:
        """Whether nothing of all that was tried works."""
        tried = (self._groups, self._outer, self._inner, self._plain, self._unproven)
        return not any(self._left(units) for units in tried)

    def result(self) -> Structure:
        """The structure with what was found; itself where all of it can go."""
        reasons = {name: why for unit, why in self._reasons.items() for name in unit.groups}
        stuck = {name: why for unit, why in self._reasons.items() for name in unit.blocks}
        pairs = {unit.groups[0]: unit.groups[1] for unit in self._groups if len(unit.groups) > 1}
        structure = self._attempts.structure
        if not reasons and not stuck and not pairs:
            return structure
        return replace(
            structure,
            channels=tuple(
                replace(group, removable=False, reason=reasons[group.name], folds=())
                if group.name in reasons
                else group
                for group in _paired(self._structure.channels, pairs)
            ),
            blocks=tuple(block for block in self._structure.blocks if block.name not in stuck),
            stuck={block.name: stuck[block.name] for block in self._structure.blocks if block.name in stuck},
        )

    def _try_groups(self) -> None:
        """Try all groups together; tell them apart only where they fail."""
        self._divide(self._groups, all_but_one)
        shares = different_shares({unit.groups[0]: self._size(unit) for unit in self._groups})
        if not any(self._attempts.failure(self._groups, share) for share in (every_second, *shares)):
            return
        self._divide(self._groups, every_second)
        self._try_different(shares)
        for share in (all_but_one, every_second):
            self._divide(self._groups, share)

    def _try_different(self, shares: Iterable[Share]) -> None:
        """Try groups of which different numbers of channels go; what can go only like another is made one with it."""
        bad: dict[Unit, str] = {}
        for share in shares:
            bad |= self._divided([], self._families(unit for unit in self._groups if unit not in bad), share)
        lonely = [unit for unit in bad if self._attempts.failure([unit], the_first)]
        self._drop({unit: why for unit, why in bad.items() if unit not in lonely})
        alone: list[Family] = []
        for unit in lonely:
            if unit not in chain(*alone):
                alone.append(self._alike_alone(unit))
        self._pair(alone)

    def _try_unproven(self) -> None:
        """Try groups that no proof covers with all that can go: whether the network runs, and what it returns has the
        shapes that it had."""
        if not self._unproven:
            return
        shares = different_shares({unit.groups[0]: self._size(unit) for unit in [*self._groups, *self._unproven]})
        for share in (all_but_one, every_second, *shares):
            self._divide(self._left(self._unproven), share, self._groups)
        self._divide(self._left(self._unproven), every_second, [*self._groups, *self._left(self._outer)])
        self._groups += self._left(self._unproven)

    def _divide(self, units: Sequence[Unit], share: Share, good: Sequence[Unit] = ()) -> None:
        """Keep those of the units that can go with the others, and with all that is `good`."""
        if units:
            self._drop(self._divided(list(good), self._families(units), share))

    def _apart(self, units: Sequence[Unit]) -> list[list[Unit]]:
        """Sets of the units such that for any two kinds, and halves of a kind, one holds the first and not the second;
        for any two units where some share a tensor."""
        if self._share_tensors:
            parts: list[Sequence[Unit]] = [(unit,) for unit in units]
        else:
            halves = (family[start::2] for family in self._families(units) for start in (0, 1))
            parts = [half for half in halves if half]
        return [list(chain(*(parts[number] for number in sorted(numbers)))) for numbers in separating(len(parts))]

    def _size(self, unit: Unit) -> int:
        return self._structure.group(unit.groups[0]).size

    def _alike_alone(self, unit: Unit) -> Family:
        """Its family, if the last of it cannot be cut alone either; or else the unit."""
        family = next(one for one in self._families(self._groups) if unit in one)
        return family if self._attempts.failure([family[-1]], the_first) else (unit,)

    def _pair(self, alone: list[Family]) -> None:
        """Make one of two families of groups that cannot be cut alone but together; those without a partner stay."""
        while alone:
            family = alone.pop(0)
            partner = next((other for other in alone if self._go_together(family, other)), None)
            if partner is None:
                self._drop(dict.fromkeys(family, self._why_alone(family)))
                continue
            alone.remove(partner)
            both = {one: Unit((*one.groups, *other.groups)) for one, other in zip(family, partner, strict=True)}
            self._likeness |= {both[one]: self._likeness[one] for one in family}
            self._groups = [both.get(unit, unit) for unit in self._groups if unit not in partner]

    def _go_together(self, family: Family, other: Family) -> bool:
        """Whether two families have a group of the same size for each other, and these work together."""
        sizes = [[self._structure.group(name).size for unit in one for name in unit.groups] for one in (family, other)]
        if sizes[0] != sizes[1]:
            return False
        ends = (Unit((*family[place].groups, *other[place].groups)) for place in (0, -1))
        return not any(self._attempts.failure([unit], every_second) for unit in ends)

    def _why_alone(self, family: Family) -> str:
        return next(filter(None, (self._attempts.failure([unit], the_first) for unit in family)), "")

    def _divided(
        self, good: list[Unit], families: Sequence[Family], share: Share, why: str | None = None
    ) -> dict[Unit, str]:
        """Extend `good` by the units that can go with it, and tell why the others cannot; `why` not all of them can, if
        that is known. Of alike units the first and the last are tried for all."""
        every = list(chain(*families))
        if why is None:
            why = self._attempts.failure([*good, *every], share)
        if not why:
            good += every
            return {}
        if len(every) == 1:
            return {every[0]: why}
        if len(families) == 1:
            ends = [self._attempts.failure([*good, every[place]], share) for place in (0, -1)]
            if all(ends):
                return dict.fromkeys(every, ends[0])
        parts = families if len(families) > 1 else _halves(every)
        middle = len(parts) // 2
        known = self._attempts.structure
        bad = self._divided(good, parts[:middle], share)
        is_still_so = not bad and self._attempts.structure is known  # no number was found to follow in between
        return bad | self._divided(good, parts[middle:], share, why if is_still_so else None)

    def _families(self, units: Iterable[Unit]) -> list[Family]:
        """The units, those of alike layers together; groups before blocks."""
        alike: dict[tuple[int, str], list[Unit]] = {}
        for unit in units:
            alike.setdefault(self._likeness[unit], []).append(unit)
        return [tuple(alike[key]) for key in sorted(alike)]

    def _left(self, units: Iterable[Unit]) -> list[Unit]:
        return [unit for unit in units if unit not in self._reasons]

    def _drop(self, bad: dict[Unit, str]) -> None:
        self._reasons |= bad
        self._groups = self._left(self._groups)


def _share_tensors(model: nn.Module, blocks: Iterable[str]) -> bool:
    """Whether two of the blocks, none of which lies in another, hold one tensor."""
    held = Counter(id(parameter) for name in blocks for parameter in model.get_submodule(name).parameters())
    return any(number > 1 for number in held.values())


def _halves(units: Sequence[Unit]) -> list[Family]:
    return [tuple(units[: len(units) // 2]), tuple(units[len(units) // 2 :])]


def _runnable(model: nn.Module, inputs: Any, original: Any) -> Any:
    """The inputs, if they are smaller than the original ones and the model runs on them; else None."""
    calls = example_calls(inputs)
    if _shapes(calls) == _shapes(example_calls(original)):
        return None
    try:
        _run_all(model, inputs)
    except AmscError:
        return None
    return inputs


def _run_all(model: nn.Module, inputs: Any) -> None:
    with borrowed(model):
        for call in example_calls(inputs):
            run_model(model, copied_inputs(call))


def _shapes(calls: Iterable[Any]) -> list[torch.Size]:
    return [leaf.shape for call in calls for leaf in pytree.tree_leaves(call) if isinstance(leaf, Tensor)]


def _paired(groups: Sequence[ChannelGroup], partner: Mapping[str, str]) -> tuple[ChannelGroup, ...]:
    """The groups, each with its partner as one: a unit of it is one of each."""
    by_name, second = {group.name: group for group in groups}, set(partner.values())
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
    return _zeros(" ".join([group.name, *(member.parameter for member in group.members[:4])]))


def _zeros(name: str) -> str:
    return re.sub(r"\d+", "0", name)
