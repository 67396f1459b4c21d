"""Before the path, where a regularizer is asked for: the dense network, trained under it."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from torch import nn

from amsc.borrowing import copied
from amsc.errors import SettingsError
from amsc.jobs.run_state import RunState
from amsc.jobs.stages.job import Job, optimizer_of, pricing_of, saved, state_of
from amsc.jobs.stages.training import judged
from amsc.regularizers import (
    REGULARIZERS,
    Course,
    Going,
    GroupParts,
    Regularizer,
    going_of,
    num_steps,
    parts_of,
    step_size_of,
    train_regularized,
)
from amsc.training import Removal, Shrunk, TrainSettings, evaluate

__all__ = ["regularized"]


def regularized(job: Job, state: RunState) -> tuple[Job, RunState]:
    """The job with the network that training under the regularizer leaves as its dense one, for the path alone, and the
    state with a point for it, which keeps its weights in the place of the dense one's.

    Raises:
        SettingsError: the regularizer cannot be applied to this network.
    """
    model = copied(job.dense)
    if state.regularized is None:
        state = _trained(job, state, model)
    assert state.regularized is not None, "it has been trained"
    model.load_state_dict(dict(state.regularized))
    return replace(job, dense=model), state


def _trained(job: Job, state: RunState, model: nn.Module) -> RunState:
    choices = job.settings
    train_regularized(
        model,
        job.data,
        job.task,
        _train_settings(job),
        _regularizer(job, model),
        state=state.pulled,
        save=lambda pulled: saved(job, replace(state, pulled=pulled)),
        progress=job.progress,
    )
    found = evaluate(model, job.data, "validation", job.task)
    epochs = choices.dense_epochs + choices.path_epochs
    point = judged(job, state, "regularized", job.structure, Removal(), model, epochs, found)
    weights = state_of(model)
    points = (*(replace(known, weights=None) for known in state.points), job.folder.save_point(point, weights, None))
    return saved(job, replace(state, pulled=None, regularized=weights, points=points))


def _regularizer(job: Job, model: nn.Module) -> Regularizer:
    """The regularizer of the settings, bound to this copy of the dense network."""
    choices, pricing = job.settings, pricing_of(job)
    assert pricing is not None, "settings with a regularizer have a criterion"
    groups = parts_of(model, pricing.scene(job.dense, job.structure).groups)
    if not groups:
        raise SettingsError(
            f"regularizer={choices.regularizer!r} pulls at channels, and none of this network may go alone; choose "
            "another method, or let more go"
        )
    steps, size = num_steps(job.data, choices.path_epochs), step_size_of(_train_settings(job).optimizer)
    course = Course(steps, size, partial(_going, job, model, groups))
    strength = None if choices.regularization == "auto" else choices.regularization
    if strength is not None:
        course.going()  # so that what cannot be priced afterwards is refused before training
    return REGULARIZERS[choices.regularizer].kind(groups, course, strength)


def _going(job: Job, model: nn.Module, groups: Sequence[GroupParts]) -> Going:
    """What would go of the network as it is now, by its prices, for the target."""
    pricing = pricing_of(job)
    assert pricing is not None, "settings with a regularizer have a criterion"
    live = Shrunk(model, job.structure, dict, 0.0)
    return going_of(job.structure, pricing.narrowing(live, job.budget.floor), groups)


def _train_settings(job: Job) -> TrainSettings:
    choices = job.settings
    optimizer = optimizer_of(choices, choices.path_learning_rate)
    return TrainSettings("regularize", choices.path_epochs, optimizer, choices.seed, speed=job.speed)
