"""How a run begins, whether its path is walked or taken over: what was asked for is checked, and its folder opened."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from amsc.data import Data
from amsc.jobs.checks import check_kinds, check_listener, chosen_target, chosen_task
from amsc.jobs.fastest import fastest_speed
from amsc.jobs.imitating import data_for
from amsc.jobs.listening import Heard, listener_of
from amsc.jobs.preparation import laddered, settings_used, taught, threads_and_determinism
from amsc.jobs.processes import together
from amsc.jobs.request import Request
from amsc.jobs.run_folder import SETTINGS_FILE, RunFolder, check_usable
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
from amsc.training import Progress

__all__ = ["job_of", "opened", "requested"]


def requested(
    model: nn.Module,
    example_inputs: Any,
    data: Data,
    target: Target | str,
    task: Task | None,
    settings: Settings,
    *,
    out: str | Path | None,
    name: str,
    progress: Heard,
    tell: bool = True,
) -> Request:
    """The request, once it is known that its parts are of the right kinds; `tell` as in `settings_used`.

    Raises:
        TargetError, ModelError, DataError, SettingsError: see `compress`.
    """
    wanted = chosen_target(target)
    check_listener(progress)
    check_kinds(model, data, settings)
    judge = chosen_task(task, settings)
    return Request(
        model,
        example_inputs,
        data,
        wanted,
        judge,
        laddered(taught(settings_used(settings, data, tell=tell), judge), wanted),
        name or type(model).__name__,
        None if out is None else Path(out),
        progress,
    )


@contextmanager
def opened(wanted: Request, *, resume: bool = False) -> Iterator[tuple[RunFolder, Progress]]:
    """The run's folder, which nobody else writes to meanwhile, and who hears of the run; torch is as the settings want
    it.

    Raises:
        RunFolderError: it holds something and `resume` is not set, there is nothing to resume, or it cannot be written.
    """
    check_usable(wanted.out, resume=resume)
    with (
        together(wanted.model, wanted.data, wanted.settings),
        claimed(
            wanted.out, is_needed=wanted.target.drop is not None
        ) as path,  # a search comes back to the path's points
        threads_and_determinism(wanted.settings),
        listener_of(wanted.progress) as listener,
        _resumable(path),
    ):
        check_usable(path, resume=resume)  # also now that nobody else may write
        identity = run_identity(wanted.name, wanted.model, wanted.data, wanted.task, wanted.target, wanted.settings)
        listener.update("prepare", 0, 1)
        yield RunFolder(path, identity), listener


@contextmanager
def _resumable(path: Path | None) -> Iterator[None]:
    """Ctrl-C says how to go on, where the run can."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if path is None or not (path / SETTINGS_FILE).is_file():
            raise
        raise type(stop)(f"stopped; to go on: the same call with resume=True, or amsc resume {path}") from stop


def job_of(
    wanted: Request,
    dense: nn.Module,
    budget: Budget,
    folder: RunFolder,
    listener: Progress,
    source: RunSettings,
    past: RunState | None = None,
    curves: Sequence[TrainingCurve] = (),
) -> Job:
    """The job that is done with the network `dense`, a copy that is the job's own; it computes as it did in the
    `past`. `source` says where the model came from, `curves` are the losses of training before."""
    data = data_for(wanted.task, wanted.data, dense)
    speed = past.speed if past else None
    losses = LossLog(listener, data.num_batches("train"), past.curves if past else curves, past.notes if past else ())
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
