"""A run in its stages (dense, path, finetune), each of which takes a saved state and leaves the next one."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from amsc.errors import AmscError, TrainingError, UndefinedOutputError, UndefinedScoreError
from amsc.jobs.run_state import RunState
from amsc.jobs.stages.dense import train_dense
from amsc.jobs.stages.finetune import finetune_small
from amsc.jobs.stages.job import Clock, Job
from amsc.jobs.stages.path import walk_path

__all__ = ["STAGES", "Job", "run_stages"]

STAGES: Mapping[str, Callable[[Job, RunState], RunState]] = {
    "dense": train_dense,
    "path": walk_path,
    "finetune": finetune_small,
}


def run_stages(job: Job, state: RunState) -> RunState:
    """The last state of the run that goes on from `state`.

    Raises:
        TrainingError: training has left a network whose output or score is not finite.
    """
    if state.dense is not None:
        job.dense.load_state_dict(dict(state.dense))
    while state.stage in STAGES:
        try:
            state = STAGES[state.stage](replace(job, clock=Clock(state.stage, state.seconds)), state)
        except (UndefinedOutputError, UndefinedScoreError) as error:
            _blame_training(job, state, error)
            raise
    return state


def _blame_training(job: Job, state: RunState, error: AmscError) -> None:
    """A `TrainingError` in the place of one about inputs or data, on which the network was finite before it was
    trained."""
    stages = list(STAGES)[: list(STAGES).index(state.stage) + 1]
    trained = [stage for stage in stages if getattr(job.settings, f"{stage}_epochs")]
    if trained:
        rates = ", ".join(
            f"{stage}_learning_rate={getattr(job.settings, f'{stage}_learning_rate')}" for stage in trained
        )
        what = "output" if isinstance(error, UndefinedOutputError) else job.task.name
        raise TrainingError(
            f"training has diverged: the {what} of the network is no longer finite; lower the learning rate ({rates})"
        ) from error
