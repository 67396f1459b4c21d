"""A run in its stages (dense, path, finetune), each of which takes a saved state and leaves the next one."""

from collections.abc import Callable, Mapping
from dataclasses import replace

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
    """The last state of the run that goes on from `state`."""
    if state.dense is not None:
        job.dense.load_state_dict(dict(state.dense))
    while state.stage in STAGES:
        state = STAGES[state.stage](replace(job, clock=Clock(state.stage, state.seconds)), state)
    return state
