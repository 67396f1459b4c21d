"""The first stage: the dense network, trained if asked to, judged and measured."""

from dataclasses import replace

from amsc.borrowing import copied
from amsc.jobs.run_state import RunState
from amsc.jobs.stages.job import Job, plan_of_removal, saved, state_of
from amsc.jobs.stages.ruin import advantage, warn_of, words_before
from amsc.jobs.stages.training import judged, train_in_place
from amsc.measurement import measure
from amsc.surgery import match_channels, verify
from amsc.training import Removal, evaluate

__all__ = ["train_dense"]


def train_dense(job: Job, state: RunState) -> RunState:
    """The state with the dense network, which is the first point of the path."""
    choices = job.settings
    train_in_place(job, job.dense, "dense", choices.dense_epochs, choices.dense_learning_rate, state)
    if choices.plain:
        _match_channels(job)
    found = evaluate(job.dense, job.data, "validation", job.task)
    point = judged(job, state, "dense", job.structure, Removal(), job.dense, choices.dense_epochs, found)
    weights, test = state_of(job.dense), evaluate(job.dense, job.data, "test", job.task)
    warn_of(words_before(job, test.score, advantage(job.dense, job.data, job.task)))
    state = replace(
        state,
        stage="path",
        train=None,
        dense=weights,
        points=(job.folder.save_point(point, weights, None),),
        score_before=test.score,
        scores_before=test.per_example,
        before=measure(job.dense, job.example_inputs),
    )
    return saved(job, state)


def _match_channels(job: Job) -> None:
    """Bring plain convolutions that may go near to the identity, and prove that the network is the same."""
    before = copied(job.dense)
    if match_channels(job.dense, job.structure):
        verify(before, job.dense, plan_of_removal(job, Removal()), job.example_inputs)
