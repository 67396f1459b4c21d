"""The smallest network that loses no more than it may: bisection over a path, then between two of its points."""

from dataclasses import replace

from amsc.errors import TargetError
from amsc.jobs.run_state import RunState, removal_of
from amsc.jobs.stages.job import Job, end_of, saved, trail_of
from amsc.jobs.stages.training import finetuned
from amsc.limits.measured import is_met
from amsc.records import PathPoint
from amsc.structure.costing import predicted_cost, predicted_macs
from amsc.training import Removal, Snapshot
from amsc.words.amounts import SHARES

__all__ = ["smallest_that_keeps"]

REFINEMENTS = 2
"""Networks looked at between the smallest point that keeps to the drop and the next smaller one."""
CLOSE = 0.02
"""Costs nearer to each other than this share of the dense network's are not told apart."""


def smallest_that_keeps(job: Job, state: RunState, drop: float) -> RunState:
    """The state with the smallest network that was found as its `small` one, and its point as the last.

    Its score falls short of the dense network's by at most `drop` on the validation split. Of two networks the smaller
    is taken to lose more. Every network looked at is fine-tuned and becomes a point.

    Raises:
        TargetError: every network that was looked at loses more.
    """
    path = sorted((point for point in state.points if point.weights is not None), key=lambda p: _cost(job, p))
    candidates = [p for p in path if _is_within_limits(job, p)]
    low, high = 0, len(candidates)
    while low < high:
        middle = (low + high) // 2
        point = candidates[middle]
        state, is_kept = _tried(job, state, _snapshot(job, point), point.epochs, drop)
        low, high = (low, middle) if is_kept else (middle + 1, high)
    kept = _cost(job, candidates[low]) if low < len(candidates) else None
    if low > 0:
        state = _refined(job, state, path, _cost(job, candidates[low - 1]), kept, drop)
    if state.small is None:
        raise TargetError(_too_much_lost(job, state, drop))
    chosen = _known(state, end_of(state).removal)
    assert chosen is not None, "it was fine-tuned"
    return replace(state, points=(*(p for p in state.points if p != chosen), chosen))


def _refined(job: Job, state: RunState, path: list[PathPoint], failed: int, kept: int | None, drop: float) -> RunState:
    """The state after looking between a cost at which too much is lost and the one that is kept (None: the limits
    are all that is known above)."""
    for _ in range(REFINEMENTS):
        goal = min(job.budget.met, _cost(job, path[-1])) if kept is None else (failed + kept) // 2
        above = [point for point in path if _cost(job, point) > goal]
        if goal - failed < CLOSE * predicted_cost(job.structure) or not above:
            break
        snapshot, _error = trail_of(job).cut_down(_snapshot(job, above[0]), goal)
        if not _is_measured_within(job, snapshot):
            break
        state, is_kept = _tried(job, state, snapshot, above[0].epochs, drop)
        if not is_kept and kept is None:
            break
        failed, kept = (failed, goal) if is_kept else (goal, kept)
    return state


def _tried(job: Job, state: RunState, snapshot: Snapshot, epochs: float, drop: float) -> tuple[RunState, bool]:
    """The state after this network, trained for `epochs` so far, was fine-tuned, and whether it keeps to the drop."""
    found = _known(state, snapshot.removal)
    if found is not None:
        return state, _lost(job, state, found) <= drop
    assert state.walk is not None, "the path has been walked"
    unwatched = replace(job, settings=replace(job.settings, score_every=0.0))  # only their ends are compared
    tried = finetuned(unwatched, state, snapshot, epochs)
    is_kept = _lost(job, tried, tried.points[-1]) <= drop
    if is_kept:
        tried = replace(tried, walk=replace(state.walk, snapshot=snapshot))
    else:
        tried = replace(tried, small=state.small)
    return saved(job, tried), is_kept


def _is_within_limits(job: Job, point: PathPoint) -> bool:
    """Whether the network of a point is smaller than the dense one and keeps to the limits that hold besides."""
    return (
        bool(removal_of(point))
        and _cost(job, point) <= job.budget.met
        and _is_measured_within(job, _snapshot(job, point))
    )


def _is_measured_within(job: Job, snapshot: Snapshot) -> bool:
    """Whether a network keeps to the limits that are measured."""
    small = trail_of(job).rebuild(snapshot)
    return is_met(job.dense, small.model, job.target, job.example_inputs)


def _snapshot(job: Job, point: PathPoint) -> Snapshot:
    return Snapshot(removal_of(point), job.folder.read_weights(point))


def _cost(job: Job, point: PathPoint) -> int:
    return predicted_cost(job.structure, point.removed_channels, point.removed_blocks)


def _lost(job: Job, state: RunState, point: PathPoint) -> float:
    """How far the point's score falls short of the dense network's."""
    short = state.points[0].score - point.score
    return short if job.task.higher_is_better else -short


def _known(state: RunState, removal: Removal) -> PathPoint | None:
    """The point of the network that was fine-tuned with this removed, if it was."""
    return next((p for p in state.points if p.phase == "finetune" and removal_of(p) == removal), None)


def _too_much_lost(job: Job, state: RunState, drop: float) -> str:
    tried = [point for point in state.points if point.phase == "finetune"]
    if not tried:
        return "no network of the path meets the other limits; walk a longer one, with more path_points"
    best = min(tried, key=lambda point: _lost(job, state, point))
    return (
        f"drop={drop:g} cannot be kept to: of {len(tried)} networks that were fine-tuned the best falls short "
        f"of the dense one by {_in_units(job, _lost(job, state, best))} (validation), with "
        f"{best.macs / predicted_macs(job.structure):.1%} of the MACs; allow more, fine-tune longer, or walk in "
        "more points"
    )


def _in_units(job: Job, lost: float) -> str:
    if job.task.name in SHARES:
        return f"{100 * lost:.4g} points of {job.task.name}"
    return f"{lost:.4g} in units of the {job.task.name}"
