"""Ordinary training inside a run, and the point of the path that comes of it."""

from dataclasses import replace
from typing import Any

from torch import nn

from amsc.jobs.run_state import RunState
from amsc.jobs.stages.job import Job, optimizer_of, saved, state_of, trail_of
from amsc.progress import Naming
from amsc.records import PathPoint
from amsc.structure import Structure
from amsc.structure.costing import predicted_cost, predicted_macs, predicted_parameters
from amsc.training import (
    Distillation,
    Evaluation,
    Removal,
    Snapshot,
    TrainSettings,
    evaluate,
    finetune,
    mean_loss,
    num_channels,
    paired_shortfall,
    reestimate_batchnorm,
)

__all__ = ["finetuned", "judged", "train_in_place"]

WORSE = 2
"""Paired standard errors by which fine-tuning must have lost for its outcome not to be taken; less may be the luck of
the network that was chosen by the same examples."""


def train_in_place(
    job: Job, model: nn.Module, phase: str, epochs: float, learning_rate: float, state: RunState
) -> None:
    """Train `model` from where `state` stands, saving after every epoch; BatchNorm is estimated anew."""
    if not epochs:
        return
    choices, options = job.settings, dict[str, Any]()
    if phase == "finetune" and choices.distillation:
        options["teach"] = Distillation(job.dense, choices.distillation, choices.temperature)
    finetune(
        model,
        job.data,
        job.task,
        _train_settings(job, phase, epochs, learning_rate),
        state=state.train,
        save=lambda train: saved(job, replace(state, train=train)),
        progress=job.progress,
        **options,
    )
    reestimate_batchnorm(model, job.data)


def finetuned(job: Job, state: RunState, snapshot: Snapshot, trained: float) -> RunState:
    """The state with the network of `snapshot`, trained for `trained` epochs so far, fine-tuned as its `small` one, and
    a point for it. Where fine-tuning leaves it worse on the validation split than it was, by more than two paired
    standard errors, it stays as it was."""
    epochs, removal = job.settings.finetune_epochs, snapshot.removal
    small, rejected = trail_of(job).rebuild(snapshot), None
    found = evaluate(small.model, job.data, "validation", job.task)
    before = found.score if epochs else None
    if epochs:
        cost = predicted_cost(job.structure, removal.channels, removal.blocks) / predicted_cost(job.structure)
        named = replace(job, progress=Naming(job.progress, {"cost": cost}))  # a search fine-tunes several in turn
        train_in_place(named, small.model, "finetune", epochs, job.settings.finetune_learning_rate, state)
        after = evaluate(small.model, job.data, "validation", job.task)
        if paired_shortfall(found.worth(job.task), after.worth(job.task)) > WORSE:
            small, rejected = trail_of(job).rebuild(snapshot), after.score
        else:
            found, trained = after, trained + epochs
    point = judged(job, state, "finetune", small.structure, removal, small.model, trained, found)
    point = replace(point, rejected_score=rejected, score_before=before)
    return replace(state, points=(*state.points, point), small=state_of(small.model), train=None)


def judged(
    job: Job,
    state: RunState,
    phase: str,
    structure: Structure,
    removal: Removal,
    model: nn.Module,
    epochs: float,
    evaluation: Evaluation,
) -> PathPoint:
    """The next point of the path: what this network costs, and how well it did on the validation split."""
    return PathPoint(
        phase=phase,
        index=len(state.points),
        strength=0.0,
        epochs=epochs,
        macs=predicted_macs(structure),
        parameters=predicted_parameters(structure),
        blocks_left=len(structure.outer_blocks),
        channels_left=num_channels(structure, streams=job.settings.with_streams),
        train_loss=mean_loss(model, job.data, job.task),
        score=evaluation.score,
        removed_blocks=removal.blocks,
        removed_channels=removal.channels,
    )


def _train_settings(job: Job, phase: str, epochs: float, learning_rate: float) -> TrainSettings:
    choices = job.settings
    return TrainSettings(
        phase,
        epochs,
        optimizer_of(choices, learning_rate),
        choices.seed,
        choices.ema if phase == "finetune" else 0.0,
        job.speed,
        choices.score_every,
    )
