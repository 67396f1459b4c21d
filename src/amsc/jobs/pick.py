"""Another budget from a path that has been walked: no walking again, only fine-tuning."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from amsc.borrowing import copied
from amsc.data import Data
from amsc.errors import ModelError, RunFolderError, SettingsError, TargetError
from amsc.jobs.checks import chosen_settings, chosen_target
from amsc.jobs.listening import Heard
from amsc.jobs.opening import job_of, opened, requested
from amsc.jobs.preparation import prepared
from amsc.jobs.result import Result, finished
from amsc.jobs.run_folder import RunFolder
from amsc.jobs.run_state import RunState, removal_of
from amsc.jobs.source import named_again, noted
from amsc.jobs.stages import Job
from amsc.jobs.stages.job import plan_of_removal
from amsc.jobs.stages.path import kept_to_limits
from amsc.limits.measured import MEASURED
from amsc.limits.target import Target
from amsc.records import PathPoint
from amsc.settings import RunSettings, Settings
from amsc.structure.costing import predicted_cost
from amsc.tasks import Task
from amsc.training import Snapshot, WalkState

__all__ = ["pick"]

# A point of the path that costs so little less than the target is taken as it is.
CLOSE = 0.995


def pick(
    run: str | Path,
    model: nn.Module,
    example_inputs: Any,
    data: Data,
    *,
    target: Target | str,
    task: Task | None = None,
    settings: Settings | None = None,
    out: str | Path | None = None,
    model_name: str = "",
    source: RunSettings | None = None,
    progress: Heard = None,
) -> Result:
    """The network of a walked path that meets `target`, fine-tuned; the path is not walked again.

    It is the last point of the path above the target, without what the penalty would empty next, or the point that is
    within half a percent below it; for a drop, the smallest network that keeps to it (see
    `amsc.jobs.stages.drop_search`). The run folder of the path is only read; the result is a run of its own, which
    `compress(..., resume=True)` goes on with if it is stopped.

        compress(model, images[:1], data, target=Target(macs=0.3), out="runs/path")
        result = pick("runs/path", model, images[:1], data, target=Target(macs=0.6))

    Args:
        run: the folder of a run of `compress`, finished or not.
        model: the dense network of that run; its weights are taken from the run.
        example_inputs: what that run was given.
        data: what to fine-tune on.
        settings: choices of the fine-tuning, and of what may go as the run had them; all those of the run if None.
        out: the new run's folder; with None nothing is written.
        source: see `compress`.

    Raises:
        TargetError: the path does not go down to the target.
        SettingsError: the path removed what these settings keep.
        RunFolderError: there is no path in `run`, or `out` cannot be used.
        ModelError: the run's weights are not of this model.
    """
    target = chosen_target(target)
    if target.is_free:
        raise TargetError(
            "free builds networks of its own, which a walked path does not hold: compress with it (amsc compress "
            "--target free), or pick by a cost or a drop, such as macs=50% or drop=1%"
        )
    walked = RunFolder(Path(run), {})
    past, was = walked.read(), walked.read_settings()
    wanted = requested(
        model,
        example_inputs,
        data,
        target,
        task,
        chosen_settings(settings, was.settings),
        out=out,
        name=model_name,
        progress=progress,
        tell=settings is not None,
    )
    known = source or _named_again(was, named_again(wanted.name, model, example_inputs, data, task))
    with opened(wanted) as (folder, listener):
        budget = prepared(wanted, past.timing)
        curves = [curve for curve in past.curves if curve.phase != "finetune"]
        job = job_of(wanted, _dense(model, past, walked.path), budget, folder, listener, known, curves=curves)
        state = _start(past, walked, job)
        folder.begin(state, noted(known, target, wanted.settings))
        return finished(job, state)


def _named_again(was: RunSettings, found: RunSettings) -> RunSettings:
    """What is known of where model and task came from; the network is that of the walked run."""
    if found.model is not None:
        return found
    return replace(found, model=was.model, num_classes=was.num_classes, in_channels=was.in_channels)


def _start(past: RunState, walked: RunFolder, job: Job) -> RunState:
    """The state before fine-tuning: at the point of the path to start from, or, for a drop, with all points to look at.

    Raises:
        TargetError: the path does not go down to the target.
        SettingsError: the path removed what the settings keep.
    """
    path = tuple(point for point in past.points if point.phase != "finetune")
    _check_choices(path, job, walked.path)
    point = path[-1] if job.target.drop is not None else _nearest(path, job, walked.path)
    walk = WalkState("done", point.index, 0, 0, _snapshot(walked, point))
    points = path
    if job.target.drop is None:
        walk = kept_to_limits(job, walk)
        points = tuple(replace(each, weights=None) for each in path if each.index <= point.index)
    state = replace(past, stage="finetune", train=None, small=None, record=None, walk=walk)
    state = replace(state, timing=job.budget.timing, speed=job.speed)
    return replace(state, points=_taken_over(points, walked, job))


def _snapshot(walked: RunFolder, point: PathPoint) -> Snapshot:
    return Snapshot(removal_of(point), walked.read_weights(point))


def _taken_over(points: tuple[PathPoint, ...], walked: RunFolder, job: Job) -> tuple[PathPoint, ...]:
    """The points with their weights, those that have any, in the new folder."""
    return tuple(
        point
        if point.weights is None
        else job.folder.save_point(point, walked.read_weights(point), plan_of_removal(job, removal_of(point)))
        for point in points
    )


def _check_choices(path: tuple[PathPoint, ...], job: Job, run: Path | None) -> None:
    """Refuse settings by which something that the path removed has to stay."""
    blocks = {block.name for block in job.structure.blocks}
    groups = {group.name for group in job.structure.channels if group.removable}
    for point in path:
        for name in (*(set(point.removed_blocks) - blocks), *(set(point.removed_channels) - groups)):
            raise SettingsError(
                f"the path in {run} removed {name}, which stays by these settings; leave settings out, or give keep, "
                "only, plain and streams as the run had them"
            )


def _dense(model: nn.Module, past: RunState, run: Path | None) -> nn.Module:
    if past.dense is None or not past.points:
        raise RunFolderError(f"the run in {run} has no path yet; finish it first: amsc resume {run}")
    dense = copied(model)
    try:
        dense.load_state_dict(dict(past.dense))
    except RuntimeError as error:
        raise ModelError(f"the run in {run} was not of this {type(model).__name__}: {error}") from error
    return dense


def _nearest(points: tuple[PathPoint, ...], job: Job, run: Path | None) -> PathPoint:
    """The point to start from: just below the target, or the last one above it."""
    structure, wanted = job.structure, job.budget.met
    cost = {point.index: predicted_cost(structure, point.removed_channels, point.removed_blocks) for point in points}
    kept = [point for point in points if point.weights is not None]
    close = [point for point in kept if CLOSE * wanted <= cost[point.index] <= wanted]
    above = [point for point in kept if cost[point.index] > wanted]
    lowest = min((cost[point.index] for point in kept), default=cost[0])
    if lowest > wanted and MEASURED & job.target.limits.keys():  # the model of the cost may be wrong; it is measured
        return min(kept, key=lambda point: cost[point.index])
    if lowest > wanted:
        raise TargetError(
            f"the path in {run} goes down to {lowest / predicted_cost(structure):.1%} of what the dense network costs, "
            f"the target is {wanted / predicted_cost(structure):.1%}; walk a longer one, with a lower target"
        )
    return close[-1] if close else min(above, key=lambda point: cost[point.index])
