"""The smallest network that loses nothing: a ladder of networks at equal cost, then between two of its rungs."""

from dataclasses import replace
from functools import partial

from amsc.errors import TargetError
from amsc.jobs.run_state import RunState
from amsc.jobs.stages.job import Job, saved, state_of, thinning_of, trail_of
from amsc.jobs.stages.points import with_point
from amsc.jobs.stages.training import judged
from amsc.records import PathPoint
from amsc.structure.costing import predicted_cost
from amsc.surgery import stand_in
from amsc.training import Candidate, Removal, Snapshot, Trail, WalkState, evaluate
from amsc.training.path.equal_cost import EqualCost, depth_at_equal_cost
from amsc.training.path.free import cost_of, judged_shares, next_cost, smallest_as_good
from amsc.training.path.thinning import Thinning
from amsc.words.free import words_on_nothing

__all__ = ["FREE", "walk_for_nothing"]

FREE = "free"
"""The phase of a walk that looks for the smallest network that loses nothing."""


def walk_for_nothing(job: Job, state: RunState) -> RunState:
    """The state at the end of a ladder without training, whose snapshot is the smallest network as good as the best.

    Networks at equal cost (see `depth_at_equal_cost`) are judged on the validation split, ever smaller ones until one
    is worse than the best of all, the dense network among them, by more than one paired standard error, and then some
    between that and the last that was not. The state is saved after each; one order of blocks serves all.

    Raises:
        TargetError: only the dense network is as good as the best.
    """
    trail = trail_of(job)
    search = _Search(job, trail, thinning_of(job, trail))
    walked = state.walk or search.start()
    while walked.phase != "done":
        goal = next_cost(job.structure, walked.candidates, job.task, job.budget.floor)
        found = None if goal is None else search.at(goal, walked)
        if found is None:
            walked = search.ended(walked)
            state = replace(state, points=(state.points[0], *sorted(state.points[1:], key=lambda p: -p.macs)))
        else:
            walked = search.with_rung(walked, found)
            point = search.point(state, found)
            state = replace(state, points=with_point(job, state.points, point, found.chosen.narrowed.snapshot()))
        state = saved(job, replace(state, walk=walked))
    if not walked.snapshot.removal:
        raise TargetError(words_on_nothing(judged_shares(job.structure, walked.candidates, job.task), job.task.name))
    state = saved(job, replace(state, stage="finetune"))
    job.folder.search_log.forget()
    return state


class _Search:
    """Makes the rungs, and says where a walk stands after each."""

    def __init__(self, job: Job, trail: Trail, thinning: Thinning) -> None:
        self._job, self._trail, self._thinning = job, trail, thinning

    def start(self) -> WalkState:
        """Before the first rung: the dense network is as good as the best so far."""
        job = self._job
        scores = evaluate(job.dense, job.data, "validation", job.task).per_example
        snapshot = Snapshot(Removal(), state_of(job.dense))
        dense = Candidate(len(job.structure.outer_blocks), scores, 0.0, snapshot)
        return WalkState(FREE, 0, 0, predicted_cost(job.structure), snapshot, candidates=(dense,))

    def at(self, goal: int, walked: WalkState) -> EqualCost | None:
        """The best network at a cost; None where there is none between it and a network that is known."""
        job = self._job
        gone = len(smallest_as_good(job.structure, walked.candidates, job.task).snapshot.removal.blocks)
        tell = partial(job.progress.update, "search", walked.index, 0)
        tell()
        try:
            found = depth_at_equal_cost(self._trail, goal, stand_in, thinning=self._thinning, near=gone, tell=tell)
        except TargetError:  # nothing costs so little
            return None
        cost = predicted_cost(found.chosen.structure)
        is_known = any(cost <= cost_of(job.structure, one) <= goal for one in walked.candidates)
        return None if is_known else found

    def with_rung(self, walked: WalkState, found: EqualCost) -> WalkState:
        """The walk with one more network."""
        chosen = found.chosen
        blocks = len(chosen.structure.outer_blocks)
        one = Candidate(blocks, chosen.judged.per_example, 0.0, chosen.narrowed.snapshot())
        error = max(walked.error, chosen.narrowed.live.error)
        return replace(walked, index=walked.index + 1, candidates=(*walked.candidates, one), error=error)

    def ended(self, walked: WalkState) -> WalkState:
        """The walk at its end: the chosen network is its snapshot; of the others only what was judged is kept."""
        chosen = smallest_as_good(self._job.structure, walked.candidates, self._job.task)
        light = (replace(one, snapshot=Snapshot(one.snapshot.removal, {})) for one in walked.candidates)
        return replace(walked, phase="done", snapshot=chosen.snapshot, candidates=tuple(light))

    def point(self, state: RunState, found: EqualCost) -> PathPoint:
        """The point of a rung."""
        job, cut, epochs = self._job, found.chosen.narrowed, state.points[0].epochs
        live = cut.live
        point = judged(job, state, "depth", live.structure, cut.removal, live.model, epochs, found.chosen.judged)
        job.progress.update("search", point.index, 0, macs=point.macs, score=point.score)
        return replace(point, repaired=live.repaired, candidates=found.rows())
