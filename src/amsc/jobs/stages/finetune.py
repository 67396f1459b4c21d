"""The last stage: the small network, fine-tuned, judged, proven and measured."""

import shutil
from dataclasses import replace
from pathlib import Path

from torch import nn

from amsc.errors import ModelError, VerificationError
from amsc.jobs.run_state import RunState
from amsc.jobs.stages.drop_search import smallest_that_keeps
from amsc.jobs.stages.job import Job, end_of, saved, small_network
from amsc.jobs.stages.record import record_of
from amsc.jobs.stages.ruin import warn_of
from amsc.jobs.stages.training import finetuned
from amsc.parallel import by_first
from amsc.surgery import is_of_transformers, save, save_pretrained
from amsc.words.card import model_card

__all__ = ["finetune_small"]


def finetune_small(job: Job, state: RunState) -> RunState:
    """The state with the small network and the record, both written to the folder.

    Where the target says how much may be lost, the smallest network of the path that keeps to it is looked for.

    Raises:
        TargetError: every network of the path loses more.
    """
    drop = job.target.most_lost
    if drop is None:
        state = finetuned(job, state, end_of(state), state.points[-1].epochs)
    else:
        state = smallest_that_keeps(job, state, drop)
    small = small_network(job, state)
    job.progress.update("measure", 0, 1)
    state = job.clock.lap(state)
    record = record_of(job, state, small)
    warn_of(record.warnings)
    state = replace(state, stage="done", record=record)
    if job.folder.path is not None:
        folder = job.folder.path
        by_first(lambda: save(small.model, folder / "model", card=model_card(record)))
        if job.settings.uniform and is_of_transformers(small.model):
            by_first(lambda: _save_for_transformers(job, small.model, folder / "pretrained"))
    return saved(job, state)


def _save_for_transformers(job: Job, model: nn.Module, folder: Path) -> None:
    """What `from_pretrained` of the stock library loads, or a warning with the reason why there is none."""
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped here
    try:
        save_pretrained(model, folder, job.example_inputs)
    except (ModelError, VerificationError) as error:
        warn_of((f"there is no {folder.name}/ in the run folder: {error}",))
