"""Candidates for a target: a network without some blocks, narrowed until it costs that, repaired and judged."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from amsc.structure.costing import predicted_cost
from amsc.structure.cutting import after_removal
from amsc.structure.structure import Structure
from amsc.tasks import Task
from amsc.training.gates.scan_gates import StandIn
from amsc.training.path.networks import Trail
from amsc.training.path.thinning import Cut, Thinning
from amsc.training.removal.removed import Removal, compose_removals
from amsc.training.removal.to_cost import blocks_above
from amsc.training.steps.evaluation import Evaluation, evaluate

__all__ = ["AtTarget", "Making"]

SLIVER = 0.25
"""A layer with less of its width left than this share has collapsed."""


@dataclass(frozen=True, eq=False)
class AtTarget:
    """A network without some blocks (`thinned`), the same without `removal` (in its own numbers) so that it costs the
    target or just less; every layer kept this `least_share`.

    The network is made when it is asked for, and judged unless it is `known` how it was: a search that goes on after a
    stop knows that of those it had come to."""

    making: "Making"
    thinned: Cut
    removal: Removal
    least_share: float = 0.0
    known: Evaluation | None = None

    @property
    def num_blocks(self) -> int:
        """How many blocks are gone."""
        return self.thinned.num_blocks

    @cached_property
    def narrowed(self) -> Cut:
        """The network at the target."""
        return self.making.without(self.thinned, self.removal)

    @cached_property
    def judged(self) -> Evaluation:
        """Its scores on the validation split."""
        trail = self.making.trail
        return self.known or evaluate(self.narrowed.live.model, trail.data, "validation", trail.task)

    @property
    def structure(self) -> Structure:
        """What the network at the target looks like."""
        return after_removal(self.thinned.live.structure, self.removal.channels, self.removal.blocks)

    @property
    def removed_blocks(self) -> tuple[str, ...]:
        """The blocks that it lacks."""
        return compose_removals(self.making.trail.structure, self.thinned.removal, self.removal).blocks

    def worth(self, task: Task) -> Tensor:
        """The score of each validation example, more being better."""
        return self.judged.worth(task)


@dataclass(frozen=True, eq=False)
class Making:
    """Makes the candidates of a `trail` that cost `target_cost` or just less; `thinning` remembers its scans."""

    trail: Trail
    target_cost: int
    stand_in: StandIn
    thinning: Thinning

    def lowest(self, cut: Cut) -> int:
        """The lowest cost that can be reached without more blocks of the order."""
        return self.thinning.lowest(cut)

    def candidate(self, thinned: Cut, *, least_share: float = 0.0, rival: bool = False) -> AtTarget:
        """The network without channels that a scan says do least, down to the target; `rival`: it is none of those
        that `thinning` makes."""
        blocks = ["rival", *thinned.removal.blocks] if rival else thinned.removal.blocks
        key = json.dumps(["network", self.target_cost, least_share, *blocks])
        if known := self.trail.memo.get(key):
            return AtTarget(self, thinned, _removal_of(known), least_share, _evaluation_of(known))
        found = AtTarget(self, thinned, self._channels(thinned, least_share), least_share)
        scores = found.judged.per_example.tolist()
        self.trail.memo.keep(key, {**vars(found.removal), "scores": scores})
        return found

    def rivals(self, one: AtTarget) -> list[AtTarget]:
        """Of a candidate some of whose layers have collapsed, which prices before recovery do not see: the same with
        more even widths, and, where blocks may go, without those that have collapsed as a whole."""
        trail, left, thinned = self.trail, one.structure, one.thinned
        slivers = _slivers(trail.structure, left)
        if not one.removal or not slivers or not self.thinning.rescues:
            return []
        found = []
        if self.thinning.lowest(thinned, least_share=SLIVER) <= self.target_cost:
            found.append(self.candidate(thinned, least_share=SLIVER))
        may_go = left.outer_blocks if trail.settings.depth_share else ()
        blocks = [block.name for block in may_go if (own := _groups_of(left, block.name)) and own <= slivers]
        if gone := blocks_above(thinned.live.structure, blocks, self.target_cost):
            found.append(self.candidate(self.without(thinned, Removal(gone)), rival=True))
        return found

    def without(self, thinned: Cut, removal: Removal) -> Cut:
        """`thinned` without `removal` (in its own numbers), as near to the dense network as that can be."""
        trail, whole = self.trail, compose_removals(self.trail.structure, thinned.removal, removal)
        live = trail.shrink(thinned.live.model, thinned.live.structure, removal)
        live = replace(live, error=max(thinned.live.error, live.error))  # of all cuts that led here
        return Cut(trail.settled(live, whole), whole)

    def _channels(self, thinned: Cut, least_share: float) -> Removal:
        """What goes down to the target."""
        if predicted_cost(thinned.live.structure) <= self.target_cost:
            return Removal()
        choice = self.thinning.width_choice(thinned, self.stand_in)
        even = choice.with_rounding(replace(choice.rounding, share=least_share)) if least_share else choice
        return even.removal(self.target_cost)


def _removal_of(known: Mapping[str, Any]) -> Removal:
    return Removal(tuple(known["blocks"]), {name: tuple(gone) for name, gone in known["channels"].items()})


def _evaluation_of(known: Mapping[str, Any]) -> Evaluation:
    scores = torch.tensor(known["scores"], dtype=torch.float32)
    return Evaluation(scores, float(scores.double().mean()))


def _slivers(dense: Structure, left: Structure) -> set[str]:
    """The groups that have lost more than all but a sliver of what they had."""
    sizes = {group.name: group.size for group in dense.channels}
    return {group.name for group in left.channels if group.size < SLIVER * sizes[group.name]}


def _groups_of(structure: Structure, block: str) -> set[str]:
    """The groups that go when the block does."""
    left = {group.name for group in after_removal(structure, {}, (block,)).channels}
    return {group.name for group in structure.channels} - left
