"""The whole job: a trained network in, a smaller verified network and the record of how it came about out."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from amsc.borrowing import copied
from amsc.data import Data
from amsc.jobs.checks import check_kinds, check_target, chosen_task
from amsc.jobs.preparation import prepared, settings_used, threads_and_determinism
from amsc.jobs.result import Result, finished
from amsc.jobs.run_folder import RunFolder, run_identity
from amsc.jobs.stages import Job
from amsc.limits.target import Target
from amsc.settings import Settings
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
        progress: hears how far the work is.

    Raises:
        TargetError: the target cannot be reached; the message says what can. Nothing has been trained then.
        RunFolderError: `out` exists, cannot be written, or belongs to another run.
        ModelError, InputError, DataError: model, example inputs and data do not fit each other.
        TrainingError: the loss became infinite or nan.
        VerificationError: a cut network differs from the masked one.
    """
    settings = settings or Settings()
    task = chosen_task(task, settings)
    check_kinds(model, data, settings)
    settings = settings_used(settings, data)
    name = model_name or type(model).__name__
    check_target(target)
    if out is None and target.drop is not None:  # the search comes back to the points of the path
        with tempfile.TemporaryDirectory() as scratch:
            return compress(
                model, example_inputs, data, target=target, task=task, settings=settings, out=Path(scratch) / "run",
                model_name=model_name, progress=progress
            )  # fmt: skip
    identity = {} if out is None else run_identity(name, model, data, target, settings)
    folder = RunFolder(None if out is None else Path(out), identity)
    folder.check(resume=resume)
    known = folder.open(resume=True).timing if resume else None
    with threads_and_determinism(settings):
        budget = prepared(model, example_inputs, data, task, target, settings, known)
        state = replace(folder.open(resume=resume), timing=budget.timing)
        folder.write_settings(settings, model_name, target)
        dense, listener = copied(model), progress or NoProgress()
        job = Job(dense, budget, example_inputs, data, task, settings, name, target, folder, listener)
        return finished(job, state)
