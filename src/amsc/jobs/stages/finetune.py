"""The last stage: the small network, fine-tuned, judged, proven and measured."""

from dataclasses import replace

from amsc.jobs.run_state import RunState
from amsc.jobs.stages.drop_search import smallest_that_keeps
from amsc.jobs.stages.job import Job, end_of, saved, small_network
from amsc.jobs.stages.record import record_of
from amsc.jobs.stages.ruin import warn_of
from amsc.jobs.stages.training import finetuned
from amsc.surgery import save
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
        save(small.model, job.folder.path / "model", card=model_card(record))
    return saved(job, state)
