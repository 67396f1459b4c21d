"""What stays the same during a run, and what every stage needs of it: networks, plans, and a state on disk."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from amsc.borrowing import copied
from amsc.criteria import PricedThinning, Pricing
from amsc.data import Data, inputs_of
from amsc.jobs.run_folder import RunFolder
from amsc.jobs.run_state import RunState
from amsc.jobs.stages.losses import LossLog
from amsc.limits.budget import Budget
from amsc.limits.target import Target
from amsc.reconstruction import reconstruct, remainders
from amsc.regularizers import REGULARIZERS
from amsc.settings import RunSettings, Settings
from amsc.structure import Structure
from amsc.structure.cutting import after_removal
from amsc.surgery import CutPlan, cut_tensors, cut_with_error, plan_cut
from amsc.tasks import Task
from amsc.training import (
    OptimizerChoice,
    Progress,
    Recovery,
    Removal,
    Shrunk,
    Snapshot,
    Speed,
    Trail,
    WalkSettings,
)
from amsc.training.path.thinning import Thinning

__all__ = [
    "Clock",
    "Job",
    "end_of",
    "optimizer_of",
    "plan_of_removal",
    "pricing_of",
    "recovery_of",
    "repaired",
    "saved",
    "shrunk",
    "small_network",
    "state_of",
    "thinning_of",
    "trail_of",
    "walk_settings",
]


@dataclass(frozen=True)
class Clock:
    """Adds the time since it was made to the seconds that a stage had taken before."""

    stage: str = "dense"
    seconds: Mapping[str, float] = field(default_factory=dict)
    start: float = field(default_factory=time.monotonic)

    def lap(self, state: RunState) -> RunState:
        """The state with the seconds until now."""
        taken = self.seconds.get(self.stage, 0.0) + time.monotonic() - self.start
        return replace(state, seconds={**self.seconds, self.stage: taken})


@dataclass(frozen=True, eq=False)
class Job:
    """What stays the same during a run. `dense` is the job's own copy of the model and is trained in place; `losses`
    hears the progress and hands it on; `source` says where the model came from; the `clock` is that of the present
    stage."""

    dense: nn.Module
    budget: Budget
    example_inputs: Any
    data: Data
    task: Task
    settings: Settings
    name: str
    target: Target
    folder: RunFolder
    progress: Progress
    losses: LossLog
    speed: Speed
    source: RunSettings
    clock: Clock = field(default_factory=Clock)

    @property
    def structure(self) -> Structure:
        """The dense network's, with the limits of the target."""
        return self.budget.structure


def saved(job: Job, state: RunState) -> RunState:
    """The state with the seconds, losses and notes until now, after it was written to the run's folder."""
    state = replace(job.clock.lap(state), curves=job.losses.curves, notes=job.losses.notes)
    job.folder.save(state)
    return state


def plan_of_removal(job: Job, removal: Removal) -> CutPlan:
    """The plan that takes `removal` from the dense network."""
    return plan_cut(job.structure, channels=removal.channels, blocks=removal.blocks)


def shrunk(example_inputs: Any, model: nn.Module, structure: Structure, removal: Removal) -> Shrunk:
    """A cut copy of `model`, verified as far as it can be; a plain copy where nothing goes."""
    if not removal:
        return Shrunk(copied(model), structure, dict, 0.0)
    plan = plan_cut(structure, channels=removal.channels, blocks=removal.blocks)
    small, error = cut_with_error(model, structure, plan, example_inputs)
    after = after_removal(structure, removal.channels, removal.blocks)
    return Shrunk(small, after, lambda tensors: cut_tensors(tensors, plan), error)


def repaired(
    job: Job,
    cut: Shrunk,
    before: nn.Module,
    structure: Structure,
    removal: Removal,
    examples: int,
    *,
    layers: int | None = None,
) -> Shrunk:
    """The network `cut` from `before`, with what that cost given back on training examples (see `reconstruct`)."""
    plan = plan_cut(structure, channels=removal.channels, blocks=removal.blocks)
    data, seed = inputs_of(job.data), job.settings.seed
    found = reconstruct(cut.model, before, data, plan=plan, examples=examples, seed=seed, layers=layers)
    return replace(cut, model=found.model, repaired=replace(found.record, seconds=None))


def trail_of(job: Job) -> Trail:
    """What the networks of the path are made with."""
    shrink = partial(shrunk, job.example_inputs)
    settings = walk_settings(job)
    repair = partial(repaired, job) if settings.reconstruction else None
    recovery, pricing = recovery_of(job.settings, job.data), pricing_of(job)
    narrowing, memo = pricing.narrowing if pricing else None, job.folder.search_log
    return Trail(job.dense, job.structure, job.data, job.task, shrink, settings, repair, recovery, narrowing, memo)


def pricing_of(job: Job) -> Pricing | None:
    """The criteria by which blocks and channels go; None where amsc decides itself."""
    chosen = job.settings
    if chosen.method != "criterion":
        return None
    own = REGULARIZERS[chosen.regularizer].criterion if chosen.regularizer else ""
    return Pricing(
        chosen.criterion or own,
        chosen.block_criterion,
        chosen.criterion_spread,
        job.data,
        job.task,
        seed=chosen.seed,
        rounding=chosen.rounding(job.structure),
        streams=chosen.with_streams,
    )


def thinning_of(job: Job, trail: Trail) -> Thinning:
    """In which order blocks go at equal cost, and which channels then."""
    pricing, floor = pricing_of(job), job.budget.floor
    return PricedThinning(trail, floor, pricing) if pricing else Thinning(trail, floor)


def recovery_of(settings: Settings, data: Data) -> Recovery | None:
    """What will be left of the price of a channel once its cut is repaired; None where it is not, or is not asked."""
    if not settings.reconstruction or settings.prices != "obs":
        return None
    return partial(remainders, inputs=inputs_of(data), examples=settings.reconstruction, seed=settings.seed)


def end_of(state: RunState) -> Snapshot:
    """The network at the end of the path, as it was there."""
    assert state.walk is not None, "the path has been walked"
    return state.walk.snapshot


def small_network(job: Job, state: RunState) -> Shrunk:
    """The fine-tuned network."""
    assert state.small is not None, "it has been fine-tuned"
    small = trail_of(job).rebuild(end_of(state))
    small.model.load_state_dict(dict(state.small))
    return small


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the model's state dict."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def walk_settings(job: Job) -> WalkSettings:
    """The choices of the path among all of a run."""
    settings = job.settings
    before = settings.path_epochs if settings.regularizer else 0.0  # of training that the path goes on from
    return WalkSettings(
        seed=settings.seed,
        method=settings.method,
        epochs=settings.path_epochs - before,
        points=settings.path_points,
        depth_share=settings.depth_share,
        depth_rule=settings.depth_rule,
        weights=settings.weights,
        theta_hat=settings.theta_hat,
        currency=settings.currency,
        optimizer=optimizer_of(settings, settings.path_learning_rate),
        epochs_before=settings.dense_epochs + before,
        rounding=settings.rounding(job.structure),
        reconstruction=settings.reconstruction,
        streams=settings.with_streams,
        speed=job.speed,
    )


def optimizer_of(settings: Settings, learning_rate: float) -> OptimizerChoice:
    """The optimiser of a stage, which has its own learning rate."""
    return OptimizerChoice(learning_rate, settings.optimizer, settings.momentum, settings.weight_decay)
