"""Whether channels and blocks can go together: tried on copies that are thrown away."""

import contextlib
import gc
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random
from typing import Any

from torch import nn

from amsc.borrowing import (
    OwnState,
    borrowed,
    copied,
    copied_inputs,
    example_calls,
    look_into,
    map_tensors,
    named_tensors,
    run_model,
)
from amsc.errors import AmscError, CutError, InputError, VerificationError
from amsc.structure.structure import PRODUCERS, ChannelGroup, Structure
from amsc.surgery.apply import apply_plan
from amsc.surgery.inputs import doubled
from amsc.surgery.plan import CutPlan, uncosted_plan
from amsc.surgery.size_search import Tries, sizes_by_trying
from amsc.surgery.verification import verify_throwaway

__all__ = [
    "Attempts",
    "Share",
    "Unit",
    "all_but_one",
    "different_shares",
    "every_second",
    "little_garbage",
    "the_first",
]

SMALL = 4
"""Channels of a group of which less than half are one, or none."""

Share = Callable[[str, int], range]
"""Which channels of a group go, by its name and their number."""


def all_but_one(group: str, size: int) -> range:
    """All channels but the last."""
    return range(size - 1)


def every_second(group: str, size: int) -> range:
    """The first channel, the third, and so on; of an odd number the last stays."""
    return range(0, size - 1, 2)


def the_first(group: str, size: int) -> range:
    """The first channel alone."""
    return range(1)


def different_shares(sizes: Mapping[str, int]) -> list[Share]:
    """A few shares such that of any two groups of the same size one loses more channels than the other in one of them.
    Of groups so small that one loses a channel and the other none, it is the other way round in another one.

    More than half of the channels stay: no number that divides the old one, which a reshape may take as well.

    Args:
        sizes: how many channels each group has, by its name.
    """
    alike: dict[int, list[str]] = defaultdict(list)
    for name, size in sizes.items():
        alike[size].append(name)
    shares = list[_Counted]()
    while not shares or any(_num_counts(size) ** len(shares) < len(names) for size, names in alike.items()):
        shares.append(_share_of_digits(alike, len(shares)))
    if any(size <= SMALL for size in alike):
        shares += [
            _Counted({n: 1 - k if sizes[n] <= SMALL else k for n, k in share.counts.items()}) for share in shares
        ]
    return list(shares)


def _share_of_digits(alike: Mapping[int, Sequence[str]], turn: int) -> "_Counted":
    """Of each group a number of channels that stands for one digit of its place among the groups of its size."""
    random, counts = Random(turn), dict[str, int]()
    for size, names in alike.items():
        possible = _num_counts(size)
        order = random.sample(range(possible), possible)
        for place, name in enumerate(names):
            counts[name] = order[place // possible**turn % possible] + (size > SMALL)
    return _Counted(counts)


def _num_counts(size: int) -> int:
    """How many numbers of channels can go: one to nearly half; of small groups none or one."""
    return max((size - 1) // 2, 2)


@dataclass(frozen=True, eq=False)
class _Counted:
    """So many channels of each group, spread evenly."""

    counts: Mapping[str, int]

    def __call__(self, group: str, size: int) -> range:
        number = self.counts[group]
        return range(0, size, size // number)[:number] if number else range(0)


@dataclass(frozen=True)
class Unit:
    """What is tried as one: groups of which the same channels go, or blocks."""

    groups: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()


class Attempts:
    """Cuts of one network, each tried once.

    Numbers in modules that are found to follow a cut follow all cuts from then on: `structure` knows them. Where the
    first cut is found that differs in float32 and not in float64, all others are tried in float64: the network chooses
    among nearly equal numbers.

    Args:
        model: the network, which is not changed.
        structure: what it was traced to.
        inputs: what every attempt is run on.
    """

    def __init__(self, model: nn.Module, structure: Structure, inputs: Any) -> None:
        self._model, self.structure, self._inputs = model, structure, inputs
        self._tries = Tries()
        self._made_by = {group.name: frozenset(_producers(group)) for group in structure.channels}
        self._runs_in_double = True
        self._known: dict[tuple[frozenset[Unit], Share], str] = {}

    def failure(self, units: Iterable[Unit], share: Share) -> str:
        """Why this share of the channels of these units, and their blocks, cannot go together; "" if they can."""
        key = (frozenset(units), share)
        if key not in self._known:
            self._known[key] = self._tried(*key)
        return self._known[key]

    def fits(self, units: Sequence[Unit], share: Share) -> bool:
        """Whether the network runs without this share and returns tensors of the same shapes.

        The run is on meta tensors, without values. Where the forward asks for values, these are compared as well."""
        if self._whole_shapes is None:
            return not self.failure(units, share)
        try:
            small = apply_plan(self._model, self._plan(units, share), self._inputs, shares=True)
            return _output_shapes(small, self._inputs) == self._whole_shapes
        except AmscError:
            return False

    @cached_property
    def _whole_shapes(self) -> list[dict[str, tuple[int, ...]]] | None:
        """The shapes of what the network returns; None if it does not run without values."""
        try:
            return _output_shapes(self._model, self._inputs)
        except AmscError:
            return None

    def _plan(self, units: Iterable[Unit], share: Share) -> CutPlan:
        """What takes this share of the channels of these units, and their blocks."""
        blocks = [name for unit in units for name in unit.blocks]
        return uncosted_plan(self.structure, self._channels(units, blocks, share), blocks)

    def _tried(self, units: Iterable[Unit], share: Share) -> str:
        try:
            plan = self._plan(units, share)
        except CutError as error:
            return _in_short(str(error))
        if plan.changes_nothing:
            return ""
        try:
            why = self._compared(self._model, plan, self._inputs)
            why = self._judged_in_double(plan, why) if why else ""
        except VerificationError as error:
            why = _in_short(str(error))
        except CutError as error:
            return _in_short(str(error))
        return self._tried(units, share) if why and not plan.blocks and self._sizes_follow(plan) else why

    def _compared(self, model: nn.Module, plan: CutPlan, inputs: Any) -> str:
        small = apply_plan(model, plan, inputs, shares=True)
        return _in_short(verify_throwaway(model, small, plan, inputs))

    def _judged_in_double(self, plan: CutPlan, why: str) -> str:
        """`why` there is a difference in float32; "" if float64 says that there is none."""
        if not self._runs_in_double:
            return why
        model, inputs = copied(self._model).double(), doubled(self._inputs)
        try:
            with borrowed(model):
                run_model(model, copied_inputs(inputs))
        except InputError:
            self._runs_in_double = False
            return why
        if self._compared(model, plan, inputs):
            return why
        self._model, self._inputs = model, inputs
        return ""

    def _sizes_follow(self, plan: CutPlan) -> bool:
        """Whether the plan works once other numbers in modules follow it, which they then do in all plans."""
        found = sizes_by_trying(self._model, plan, self._inputs, structure=self.structure, tries=self._tries)
        if found is None:
            return False
        sizes = {(size.module, size.place): size for size in (*self.structure.sizes, *(one.size for one in found))}
        if tuple(sizes.values()) == self.structure.sizes:
            return False
        self.structure = replace(self.structure, sizes=tuple(sizes.values()))
        self._known = {key: why for key, why in self._known.items() if not why}  # what failed may work now
        return True

    def _channels(self, units: Iterable[Unit], blocks: Iterable[str], share: Share) -> dict[str, range]:
        """The channels that go of those of the groups that are still made when the blocks are gone."""
        removed = [self.structure.block(name) for name in blocks]
        silent = frozenset(parameter for block in removed for parameter in block.parameters)
        own = frozenset(name for block in removed for name in block.channels)
        channels: dict[str, range] = {}
        for unit in units:
            for name in unit.groups:
                size = self.structure.group(name).size
                if size > 1 and name not in own and not self._made_by[name] <= silent:
                    channels[name] = share(unit.groups[0], size)
        return {name: chosen for name, chosen in channels.items() if chosen}


@contextlib.contextmanager
def little_garbage() -> Iterator[None]:
    """What there is now is not looked through for garbage: that takes longer than to copy a network, and is done every
    few copies."""
    is_ours = gc.isenabled() and not gc.get_freeze_count()
    if is_ours:
        gc.freeze()
    try:
        yield
    finally:
        if is_ours:
            gc.unfreeze()


def _output_shapes(model: nn.Module, inputs: Any) -> list[dict[str, tuple[int, ...]]]:
    """The shapes of what the model returns for each call, without values.

    Raises:
        AmscError: its forward does not run without values.
    """
    without = {name: tensor.to("meta") for name, tensor in named_tensors(model).items()}
    calls = [map_tensors(lambda tensor: tensor.to("meta"), call) for call in example_calls(inputs)]
    own = OwnState.of(model)
    with borrowed(model):
        seen = [look_into(run_model(model, call, without), own) for call in calls]
    return [{name: tuple(tensor.shape) for name, tensor in one.tensors.items()} for one in seen]


def _in_short(reason: str) -> str:
    """A reason without the advice that follows it."""
    return reason.split(". A size", 1)[0].split(". The cut model is not", 1)[0]


def _producers(group: ChannelGroup) -> Iterator[str]:
    return (member.parameter for member in group.members if member.role in PRODUCERS)
