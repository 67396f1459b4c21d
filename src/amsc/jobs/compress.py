"""The whole job: a trained network in, a smaller verified network and the record of how it came about out."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from amsc.borrowing import copied
from amsc.data import Data
from amsc.jobs.checks import check_kinds, check_target, chosen_task
from amsc.jobs.preparation import prepared, settings_used, threads_and_determinism
from amsc.jobs.result import Result, finished
from amsc.jobs.run_folder import RunFolder, check_usable
from amsc.jobs.run_identity import run_identity
from amsc.jobs.run_lock import claimed
from amsc.jobs.run_state import RunState
from amsc.jobs.source import named_again, noted
from amsc.jobs.stages import Job
from amsc.jobs.stages.job import state_of
from amsc.limits.target import Target
from amsc.settings import RunSettings, Settings
from amsc.tasks import Task
from amsc.training import NoProgress, Progress

__all__ = ["Result", "compress"]


def compress(
    model: nn.Module,
    example_inputs: Any,
    data: Data,
    *,
    target: Target,
    task: Task | None = None,
    settings: Settings | None = None,
    out: str | Path | None = None,
    model_name: str = "",
    resume: bool = False,
    source: RunSettings | None = None,
    progress: Progress | None = None,
) -> Result:
    """A smaller network that meets `target`, found on the AMSC path (depth first, then width) and fine-tuned.

    The steps: trace; train the dense network first if `settings.dense_epochs` says so; walk, cutting and verifying all
    the way; fine-tune; verify the whole; measure. `model` is not changed. On a CPU two runs with the same
    settings give the same record but for seconds, latencies and peak memory; so does a run that was killed and resumed.

        result = compress(model, images[:1], data, target=Target(macs=0.5), out="runs/first")

    Args:
        example_inputs: a tensor, or a tuple or dict of arguments, for which MACs and latency are counted.
        task: loss and score; classification if None.
        out: the run's folder; new, unless `resume`. With None nothing is written.
        model_name: what record and report call the model; its class if empty.
        resume: go on with the run in `out`.
        source: how the command line can make model, data and task again, as in
            `amsc.settings.RunSettings(model="my.nets:build", data="my.data:loaders")`, so that `amsc resume` and others
            need not ask for them.
        progress: hears how far the work is.

    Raises:
        TargetError: the target cannot be reached; the message says what can. Nothing has been trained then.
        RunFolderError: `out` exists, cannot be written, or belongs to another run.
        ModelError, InputError, DataError: model, example inputs and data do not fit each other.
        TrainingError: the loss became infinite or nan.
        VerificationError: a cut network differs from the masked one.
    """
    settings = settings or Settings()
    check_target(target)
    check_kinds(model, data, settings)
    judge = chosen_task(task, settings)
    settings = settings_used(settings, data)
    name = model_name or type(model).__name__
    known = source or named_again(name, model, example_inputs, data, task)
    out = None if out is None else Path(out)
    check_usable(out, resume=resume)
    with (
        claimed(out, is_needed=target.drop is not None) as path,  # a search comes back to the points of the path
        threads_and_determinism(settings),
    ):
        check_usable(path, resume=resume)  # also now that nobody else may write
        folder = RunFolder(path, run_identity(name, model, data, judge, target, settings))
        past = folder.read() if resume else None
        budget = prepared(model, example_inputs, data, judge, target, settings, None if past is None else past.timing)
        listener = progress or NoProgress()
        job = Job(copied(model), budget, example_inputs, data, judge, settings, name, target, folder, listener)
        state = replace(past or RunState(dense=state_of(job.dense)), timing=budget.timing)
        folder.begin(state, noted(known, target, settings))
        return finished(job, state)
