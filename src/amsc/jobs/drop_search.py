"""The smallest network that loses no more than it may: bisection over a path, then between two of its points."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from amsc.errors import TargetError
from amsc.jobs.run_folder import RunState
from amsc.records import PathPoint
from amsc.structure import Structure
from amsc.structure.costing import predicted_cost, predicted_macs
from amsc.training import Removal, Snapshot

__all__ = ["Search", "removal_of"]

REFINEMENTS = 2
"""Networks looked at between the smallest point that keeps to the drop and the next smaller one."""
CLOSE = 0.02
"""Costs nearer to each other than this share of the dense network's are not told apart."""


@dataclass(frozen=True)
class Search:
    """Of two networks the smaller is taken to lose more. Every network looked at is fine-tuned and becomes a point.

    Attributes:
        structure: the dense network's, with the limits that hold besides.
        met: the cost at which these are met.
        drop: how far the score may fall short of the dense network's, on the validation split.
        higher_is_better: which way that is.
        snapshot: the network of a point of the path.
        cut: a network cut down to a cost.
        keeps: whether a network keeps to limits that are measured.
        finetune: the state with a network, trained for so many epochs before, fine-tuned as its `small` one, and a
            point for it at the end.
        save: writes a state.
    """

    structure: Structure
    met: int
    drop: float
    higher_is_better: bool
    snapshot: Callable[[PathPoint], Snapshot]
    cut: Callable[[Snapshot, int], Snapshot]
    keeps: Callable[[Snapshot], bool]
    finetune: Callable[[RunState, Snapshot, float], RunState]
    save: Callable[[RunState], RunState]

    def run(self, state: RunState) -> RunState:
        """The state with the smallest network that was found as its `small` one, and its point as the last.

        Raises:
            TargetError: every network that was looked at loses more.
        """
        path = sorted((point for point in state.points if point.weights is not None), key=self._cost)
        candidates = [p for p in path if removal_of(p) and self._cost(p) <= self.met and self.keeps(self.snapshot(p))]
        low, high = 0, len(candidates)
        while low < high:
            middle = (low + high) // 2
            state, is_kept = self._tried(state, self.snapshot(candidates[middle]), candidates[middle].epochs)
            low, high = (low, middle) if is_kept else (middle + 1, high)
        kept = self._cost(candidates[low]) if low < len(candidates) else None
        if low > 0:
            state = self._refined(state, path, self._cost(candidates[low - 1]), kept)
        if state.small is None:
            raise TargetError(self._too_much_lost(state))
        assert state.walk is not None, "the path has been walked"
        chosen = _known(state, state.walk.snapshot.removal)
        assert chosen is not None, "it was fine-tuned"
        return replace(state, points=(*(p for p in state.points if p != chosen), chosen))

    def _refined(self, state: RunState, path: list[PathPoint], failed: int, kept: int | None) -> RunState:
        """The state after looking between a cost at which too much is lost and the one that is kept (None: the limits
        are all that is known above)."""
        for _ in range(REFINEMENTS):
            goal = min(self.met, self._cost(path[-1])) if kept is None else (failed + kept) // 2
            above = [point for point in path if self._cost(point) > goal]
            if goal - failed < CLOSE * predicted_cost(self.structure) or not above:
                break
            snapshot = self.cut(self.snapshot(above[0]), goal)
            if not self.keeps(snapshot):
                break
            state, is_kept = self._tried(state, snapshot, above[0].epochs)
            if not is_kept and kept is None:
                break
            failed, kept = (failed, goal) if is_kept else (goal, kept)
        return state

    def _tried(self, state: RunState, snapshot: Snapshot, epochs: float) -> tuple[RunState, bool]:
        """The state after this network was fine-tuned, and whether it keeps to the drop."""
        found = _known(state, snapshot.removal)
        if found is not None:
            return state, self._lost(state, found) <= self.drop
        assert state.walk is not None, "the path has been walked"
        tried = self.finetune(state, snapshot, epochs)
        is_kept = self._lost(tried, tried.points[-1]) <= self.drop
        if is_kept:
            tried = replace(tried, walk=replace(state.walk, snapshot=snapshot))
        else:
            tried = replace(tried, small=state.small)
        return self.save(tried), is_kept

    def _cost(self, point: PathPoint) -> int:
        return predicted_cost(self.structure, point.removed_channels, point.removed_blocks)

    def _lost(self, state: RunState, point: PathPoint) -> float:
        """How far the point's score falls short of the dense network's."""
        short = state.points[0].score - point.score
        return short if self.higher_is_better else -short

    def _too_much_lost(self, state: RunState) -> str:
        tried = [point for point in state.points if point.phase == "finetune"]
        if not tried:
            return "no network of the path meets the other limits; walk a longer one, with more path_points"
        best = min(tried, key=lambda point: self._lost(state, point))
        return (
            f"drop={self.drop:g} cannot be kept to: of {len(tried)} networks that were fine-tuned the best falls short "
            f"of the dense one by {self._lost(state, best):.4g} (validation), with "
            f"{best.macs / predicted_macs(self.structure):.1%} of the MACs; allow more, fine-tune longer, or walk in "
            "more points"
        )


def removal_of(point: PathPoint) -> Removal:
    """What the point's network lacks."""
    return Removal(point.removed_blocks, point.removed_channels)


def _known(state: RunState, removal: Removal) -> PathPoint | None:
    """The point of the network that was fine-tuned with this removed, if it was."""
    return next((p for p in state.points if p.phase == "finetune" and removal_of(p) == removal), None)
