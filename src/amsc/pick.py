"""Another budget from a path that has been walked: no walking again, only fine-tuning."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from amsc.compress import Result, check_kinds, check_target, chosen_task, deterministic, finished, prepared
from amsc.data import Data
from amsc.errors import ModelError, RunFolderError, TargetError
from amsc.job import Job, walk_settings
from amsc.model_access import copied
from amsc.records import PathPoint
from amsc.run_folder import RunFolder, RunState, run_identity
from amsc.settings import Settings, Target
from amsc.tasks import Task
from amsc.training import NoProgress, Progress, Removal, Snapshot, WalkState, cut_down

__all__ = ["pick"]

# A point of the path that costs so little less than the target is taken as it is.
CLOSE = 0.995


def pick(
    run: str | Path,
    model: nn.Module,
    example_inputs: Any,
    data: Data,
    *,
    target: Target,
    task: Task | None = None,
    settings: Settings | None = None,
    out: str | Path | None = None,
    model_name: str = "",
    progress: Progress | None = None,
) -> Result:
    """The network of a walked path that meets `target`, fine-tuned; the path is not walked again.

    It is the last point of the path above the target, without what the penalty would empty next, or the point that is
    within half a percent below it. The run folder of the path is only read; the result is a run of its own, which
    `compress(..., resume=True)` goes on with if it is stopped.

        compress(model, images[:1], data, target=Target(macs=0.3), out="runs/path")
        result = pick("runs/path", model, images[:1], data, target=Target(macs=0.6))

    Args:
        run: the folder of a run of `compress`, finished or not.
        model: the dense network of that run; its weights are taken from the run.
        example_inputs: what that run was given.
        data: what to fine-tune on.
        settings: choices of the fine-tuning; `keep`, `only` and `round_to` should be those of the run.
        out: the new run's folder; with None nothing is written.

    Raises:
        TargetError: the path does not go down to the target.
        RunFolderError: there is no path in `run`, or `out` cannot be used.
        ModelError: the run's weights are not of this model.
    """
    settings = settings or Settings()
    task = chosen_task(task, settings)
    check_target(target)
    check_kinds(model, data, settings)
    name = model_name or type(model).__name__
    walked = RunFolder(Path(run), {})
    past = walked.read()
    folder = RunFolder(None if out is None else Path(out), run_identity(name, data.name, target, settings))
    structure, target_macs = prepared(model, example_inputs, data, task, target, settings)
    dense = _dense(model, past, walked.path)
    point = _nearest(past.points, target_macs, structure.macs(), walked.path)
    folder.check(resume=False)
    job = Job(
        dense,
        structure,
        example_inputs,
        data,
        task,
        settings,
        name,
        target,
        target_macs,
        folder,
        progress or NoProgress(),
    )
    snapshot, error = (
        Snapshot(Removal(point.removed_blocks, point.removed_channels), walked.read_weights(point), {}),
        0.0,
    )
    with deterministic(settings.deterministic):
        if point.macs > target_macs:
            snapshot, error = cut_down(
                dense,
                structure,
                data,
                task,
                snapshot,
                shrink=job.shrink,
                target_macs=target_macs,
                settings=walk_settings(settings),
            )
        folder.open(resume=False)
        folder.write_settings(settings, model_name, target)
        known = tuple(replace(each, weights=None) for each in past.points if each.index <= point.index)
        walk = WalkState("done", point.index, 0, point.macs, snapshot, error=error)
        return finished(
            job, replace(past, stage="finetune", train=None, small=None, record=None, walk=walk, points=known)
        )


def _dense(model: nn.Module, past: RunState, run: Path | None) -> nn.Module:
    if past.dense is None:
        raise RunFolderError(f"the run in {run} has no path yet; finish it first: amsc resume {run}")
    dense = copied(model)
    try:
        dense.load_state_dict(dict(past.dense))
    except RuntimeError as error:
        raise ModelError(f"the run in {run} was not of this {type(model).__name__}: {error}") from error
    return dense


def _nearest(points: tuple[PathPoint, ...], target_macs: int, dense_macs: int, run: Path | None) -> PathPoint:
    """The point to start from: just below the target, or the last one above it."""
    kept = [point for point in points if point.weights is not None]
    close = [point for point in kept if CLOSE * target_macs <= point.macs <= target_macs]
    above = [point for point in kept if point.macs > target_macs]
    lowest = min((point.macs for point in kept), default=dense_macs)
    if lowest > target_macs:
        share = -(-1000 * lowest // dense_macs) / 10
        raise TargetError(
            f"the path in {run} goes down to macs={share:.1f}%, not to {target_macs / dense_macs:.1%}; "
            "walk a longer one, with a lower target"
        )
    return max(close, key=lambda point: point.score) if close else min(above, key=lambda point: point.macs)
