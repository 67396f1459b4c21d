"""The second stage: the path, down to the target."""

from dataclasses import replace

from amsc.jobs.run_state import RunState
from amsc.jobs.stages.free_search import walk_for_nothing
from amsc.jobs.stages.job import Job, saved, thinning_of, trail_of
from amsc.jobs.stages.points import with_point
from amsc.jobs.stages.regularized import regularized
from amsc.limits.measured import keep_to_limits
from amsc.surgery import stand_in
from amsc.training import WalkState, walk

__all__ = ["kept_to_limits", "walk_path"]


def walk_path(job: Job, state: RunState) -> RunState:
    """The state at the end of the path; it is saved at every point, and between them what
    a search has found out. With a regularizer the path goes on from what training under it left.

    Raises:
        TargetError: see `walk_for_nothing`.
    """
    if job.settings.regularizer:
        job, state = regularized(job, state)
    if job.target.is_free:
        return walk_for_nothing(job, state)
    trail = trail_of(job)
    path = walk(
        job.dense,
        job.structure,
        job.data,
        job.task,
        shrink=trail.shrink,
        repair=trail.repair,
        recovery=trail.recovery,
        memo=trail.memo,
        target_cost=job.budget.floor,
        settings=trail.settings,
        stand_in=stand_in,
        thinning=thinning_of(job, trail),
        state=state.walk,
        progress=job.progress,
    )
    for point, snapshot, walk_state in path:
        points = with_point(job, state.points, replace(point, index=len(state.points)), snapshot)
        state = saved(job, replace(state, walk=walk_state, points=points))
    if job.target.drop is None:
        assert state.walk is not None, "walked"
        state = replace(state, walk=kept_to_limits(job, state.walk))
    state = saved(job, replace(state, stage="finetune"))
    job.folder.search_log.forget()
    return state


def kept_to_limits(job: Job, walked: WalkState) -> WalkState:
    """The end of a path, cut down to the budget, also where it is only measured to be above a limit."""
    snapshot, error = keep_to_limits(trail_of(job), job.budget, job.target, job.example_inputs, walked.snapshot)
    return replace(walked, snapshot=snapshot, error=max(error, walked.error))
