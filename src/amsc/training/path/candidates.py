"""Candidates for a target: a network without some blocks, narrowed until it costs that, repaired and judged."""

from dataclasses import dataclass, replace

from torch import Tensor

from amsc.structure.costing import predicted_cost
from amsc.structure.cutting import after_removal
from amsc.structure.structure import Structure
from amsc.tasks import Task
from amsc.training.gates.choice import WidthChoice
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
    """A network without some blocks (`thinned`), the same `narrowed` down to the target, and how that was judged.
    `choice` knows which channels go for any cost, None where none had to; every layer kept this `least_share`."""

    thinned: Cut
    narrowed: Cut
    judged: Evaluation
    choice: WidthChoice | None = None
    least_share: float = 0.0

    @property
    def num_blocks(self) -> int:
        """How many blocks are gone."""
        return self.thinned.num_blocks

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

    def candidate(self, thinned: Cut) -> AtTarget:
        """The network without channels that a scan says do least, down to the target."""
        if predicted_cost(thinned.live.structure) <= self.target_cost:
            return self._judged(thinned, None, Removal())
        choice = self.thinning.width_choice(thinned, self.stand_in)
        return self._judged(thinned, choice, choice.removal(self.target_cost))

    def rivals(self, one: AtTarget) -> list[AtTarget]:
        """Of a candidate some of whose layers have collapsed, which prices before recovery do not see: the same with
        more even widths, and, where blocks may go, without those that have collapsed as a whole."""
        left = one.narrowed.live.structure
        slivers = _slivers(self.trail.structure, left)
        if one.choice is None or not slivers or not self.thinning.rescues:
            return []
        found = []
        evener = one.choice.with_rounding(replace(one.choice.rounding, share=SLIVER))
        if evener.lowest <= self.target_cost:
            found.append(self._judged(one.thinned, evener, evener.removal(self.target_cost), least_share=SLIVER))
        may_go = left.outer_blocks if self.trail.settings.depth_share else ()
        blocks = [block.name for block in may_go if (own := _groups_of(left, block.name)) and own <= slivers]
        if gone := blocks_above(one.thinned.live.structure, blocks, self.target_cost):
            found.append(self.candidate(self._without(one.thinned, Removal(gone))))
        return found

    def _judged(
        self, thinned: Cut, choice: WidthChoice | None, removal: Removal, *, least_share: float = 0.0
    ) -> AtTarget:
        trail, narrowed = self.trail, self._without(thinned, removal)
        judged = evaluate(narrowed.live.model, trail.data, "validation", trail.task)
        return AtTarget(thinned, narrowed, judged, choice, least_share)

    def _without(self, thinned: Cut, removal: Removal) -> Cut:
        whole = compose_removals(self.trail.structure, thinned.removal, removal)
        live = self.trail.shrink(thinned.live.model, thinned.live.structure, removal)
        live = replace(live, error=max(thinned.live.error, live.error))  # of all cuts that led here
        return Cut(self.trail.settled(live, whole), whole)


def _slivers(dense: Structure, left: Structure) -> set[str]:
    """The groups that have lost more than all but a sliver of what they had."""
    sizes = {group.name: group.size for group in dense.channels}
    return {group.name for group in left.channels if group.size < SLIVER * sizes[group.name]}


def _groups_of(structure: Structure, block: str) -> set[str]:
    """The groups that go when the block does."""
    left = {group.name for group in after_removal(structure, {}, (block,)).channels}
    return {group.name for group in structure.channels} - left
