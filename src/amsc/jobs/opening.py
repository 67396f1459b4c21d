"""How a run begins, whether its path is walked or taken over: what was asked for is checked, and its folder opened."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from amsc.data import Data
from amsc.jobs.checks import check_kinds, check_listener, check_target, chosen_task
from amsc.jobs.fastest import fastest_speed
from amsc.jobs.imitating import data_for
from amsc.jobs.preparation import laddered, settings_used, taught, threads_and_determinism
from amsc.jobs.request import Request
from amsc.jobs.run_folder import RunFolder, check_usable
from amsc.jobs.run_identity import run_identity
from amsc.jobs.run_lock import claimed
from amsc.jobs.run_state import RunState
from amsc.jobs.stages import Job
from amsc.jobs.stages.losses import LossLog
from amsc.limits.budget import Budget
from amsc.limits.target import Target
from amsc.records import TrainingCurve
from amsc.settings import RunSettings, Settings
from amsc.tasks import Task
from amsc.training import NoProgress, Progress

__all__ = ["job_of", "opened", "requested"]


def requested(
    model: nn.Module,
    example_inputs: Any,
    data: Data,
    target: Target,
    task: Task | None,
    settings: Settings,
    *,
    out: str | Path | None,
    name: str,
    progress: Progress | None,
    tell: bool = True,
) -> Request:
    """The request, once it is known that its parts are of the right kinds; `tell` as in `settings_used`.

    Raises:
        TargetError, ModelError, DataError, SettingsError: see `compress`.
    """
    check_target(target)
    check_listener(progress)
    check_kinds(model, data, settings)
    judge = chosen_task(task, settings)
    return Request(
        model,
        example_inputs,
        data,
        target,
        judge,
        laddered(taught(settings_used(settings, data, tell=tell), judge), target),
        name or type(model).__name__,
        None if out is None else Path(out),
        progress or NoProgress(),
    )


@contextmanager
def opened(wanted: Request, *, resume: bool = False) -> Iterator[RunFolder]:
    """The run's folder, which nobody else writes to meanwhile, and torch as the settings want it.

    Raises:
        RunFolderError: it holds something and `resume` is not set, there is nothing to resume, or it cannot be written.
    """
    check_usable(wanted.out, resume=resume)
    with (
        claimed(
            wanted.out, is_needed=wanted.target.drop is not None
        ) as path,  # a search comes back to the path's points
        threads_and_determinism(wanted.settings),
    ):
        check_usable(path, resume=resume)  # also now that nobody else may write
        identity = run_identity(wanted.name, wanted.model, wanted.data, wanted.task, wanted.target, wanted.settings)
        yield RunFolder(path, identity)


def job_of(
    wanted: Request,
    dense: nn.Module,
    budget: Budget,
    folder: RunFolder,
    source: RunSettings,
    past: RunState | None = None,
    curves: Sequence[TrainingCurve] = (),
) -> Job:
    """The job that is done with the network `dense`, a copy that is the job's own; it computes as it did in the
    `past`. `source` says where the model came from, `curves` are the losses of training before."""
    data = data_for(wanted.task, wanted.data, dense)
    speed = past.speed if past else None
    losses = LossLog(wanted.progress, data.num_batches("train"), past.curves if past else curves)
    return Job(
        dense,
        budget,
        wanted.example_inputs,
        data,
        wanted.task,
        wanted.settings,
        wanted.name,
        wanted.target,
        folder,
        losses,
        losses,
        speed or fastest_speed(dense, data, wanted.task, wanted.settings),
        source,
    )
