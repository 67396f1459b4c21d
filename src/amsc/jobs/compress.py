"""The whole job: a trained network in, a smaller verified network and the record of how it came about out."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from amsc.borrowing import copied
from amsc.data import Data
from amsc.jobs.checks import check_plain, check_regularizer, chosen_settings, chosen_target
from amsc.jobs.listening import Heard
from amsc.jobs.opening import job_of, opened, requested
from amsc.jobs.preparation import prepared
from amsc.jobs.result import Result, finished
from amsc.jobs.run_state import RunState
from amsc.jobs.source import named_again, noted
from amsc.jobs.stages.job import state_of
from amsc.limits.target import Target
from amsc.settings import RunSettings, Settings
from amsc.tasks import Task

__all__ = ["Result", "compress"]


def compress(
    model: nn.Module,
    example_inputs: Any,
    data: Data,
    *,
    target: Target | str,
    task: Task | None = None,
    settings: Settings | None = None,
    out: str | Path | None = None,
    model_name: str = "",
    resume: bool = False,
    source: RunSettings | None = None,
    progress: Heard = None,
) -> Result:
    """A smaller network that meets `target`, found on the AMSC path (depth first, then width) and fine-tuned.

    The steps: trace; train the dense network first if `settings.dense_epochs` says so; walk, cutting and verifying all
    the way; fine-tune; verify the whole; measure. `model` is not changed; the result's `model` is in eval mode, as what
    `amsc.load` returns. On a CPU two runs with the same
    settings give the same record but for seconds, latencies and peak memory; so does a run that was killed and resumed.

        result = compress(model, images[:1], data, target=Target(macs=0.5), out="runs/first")

    Args:
        example_inputs: a tensor, or a tuple or dict of arguments, for which MACs and latency are counted.
        target: what the small network may cost or lose; or as it is typed, "macs=50%".
        task: loss and score; classification if None. `amsc.tasks.Imitation()` compares with `model` and needs no
            labels.
        out: the run's folder; new, unless `resume`. With None nothing is written.
        model_name: what record and report call the model; its class if empty.
        resume: go on with the run in `out`.
        source: how the command line can make model, data and task again, as in
            `amsc.settings.RunSettings(model="my.nets:build", data="my.data:loaders")`, so that `amsc resume` and others
            can say what to type.
        progress: hears how far the work is; True shows it on standard error, None does so where that is a terminal or
            a notebook, and else writes it to the log "amsc" at level INFO; False never.

    Raises:
        TargetError: the target cannot be reached; the message says what can. Nothing has been trained then.
        RunFolderError: `out` exists, cannot be written, or belongs to another run.
        ModelError, InputError, DataError: model, example inputs and data do not fit each other.
        TrainingError: the loss became infinite or nan.
        VerificationError: a cut network differs from the masked one.
    """
    check_regularizer(chosen_settings(settings, Settings()), chosen_target(target))
    wanted = requested(
        model,
        example_inputs,
        data,
        target,
        task,
        chosen_settings(settings, Settings()),
        out=out,
        name=model_name,
        progress=progress,
    )
    check_plain(wanted.settings, wanted.target)
    known = source or named_again(wanted.name, model, example_inputs, data, task)
    with opened(wanted, resume=resume) as (folder, listener):
        past = folder.read() if resume else None
        budget = prepared(wanted, None if past is None else past.timing)
        job = job_of(wanted, copied(model), budget, folder, listener, known, past)
        state = replace(past or RunState(dense=state_of(job.dense)), timing=budget.timing, speed=job.speed)
        folder.begin(state, noted(known, wanted.target, wanted.settings))
        return finished(job, state)
