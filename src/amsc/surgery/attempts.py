"""Whether channels and blocks can go together: tried on copies that are thrown away."""

import contextlib
import gc
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from amsc.borrowing import borrowed, copied, copied_inputs, run_model
from amsc.errors import CutError, InputError, VerificationError
from amsc.structure.structure import PRODUCERS, ChannelGroup, Structure
from amsc.surgery.apply import apply_plan
from amsc.surgery.inputs import doubled
from amsc.surgery.plan import CutPlan, uncosted_plan
from amsc.surgery.size_search import Tries, sizes_by_trying
from amsc.surgery.verification import verify_throwaway

__all__ = ["ALL", "HALF", "ONE", "Attempts", "Unit", "little_garbage"]

# Of each group go all channels but one, every second one, or the first alone.
ALL, HALF, ONE = "all", "half", "one"


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
        self._known: dict[tuple[frozenset[Unit], str], str] = {}

    def failure(self, units: Iterable[Unit], share: str) -> str:
        """Why this share of the channels of these units, and their blocks, cannot go together; "" if they can."""
        key = (frozenset(units), share)
        if key not in self._known:
            self._known[key] = self._tried(*key)
        return self._known[key]

    def _tried(self, units: Iterable[Unit], share: str) -> str:
        blocks = [name for unit in units for name in unit.blocks]
        channels = self._channels([name for unit in units for name in unit.groups], blocks, share)
        if not channels and not blocks:
            return ""
        try:
            plan = uncosted_plan(self.structure, channels, blocks)
        except CutError as error:
            return _in_short(str(error))
        try:
            why = self._compared(self._model, plan, self._inputs)
            why = self._judged_in_double(plan, why) if why else ""
        except VerificationError as error:
            why = _in_short(str(error))
        except CutError as error:
            return _in_short(str(error))
        return self._tried(units, share) if why and not blocks and self._sizes_follow(plan) else why

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

    def _channels(self, groups: Iterable[str], blocks: Iterable[str], share: str) -> dict[str, range]:
        """The channels that go of those of the groups that are still made when the blocks are gone."""
        removed = [self.structure.block(name) for name in blocks]
        silent = frozenset(parameter for block in removed for parameter in block.parameters)
        own = frozenset(name for block in removed for name in block.channels)
        left = (self.structure.group(name) for name in groups if name not in own and not self._made_by[name] <= silent)
        return {group.name: _share_of(group.size, share) for group in left if group.size > 1}


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


def _share_of(size: int, share: str) -> range:
    return range(1) if share == ONE else range(0, size - 1, 1 if share == ALL else 2)


def _in_short(reason: str) -> str:
    """A reason without the advice that follows it."""
    return reason.split(". A size", 1)[0].split(". The cut model is not", 1)[0]


def _producers(group: ChannelGroup) -> Iterator[str]:
    return (member.parameter for member in group.members if member.role in PRODUCERS)
