"""Ordinary training with a cosine schedule, for the dense network before and the small one after; resumable."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from amsc.data import Data
from amsc.progress import NoProgress, Progress
from amsc.tasks import Task
from amsc.training.steps.captured import step_of
from amsc.training.steps.loop import Batches, Stretch, cosine, set_learning_rate, train_steps
from amsc.training.steps.optimizers import Moments, OptimizerChoice, make_optimizer, moments_of, restore_moments
from amsc.training.steps.scoring import Often, ScoreWatch
from amsc.training.steps.step import AS_IS, Speed, Teach, TrainingStep, as_it_is, device_of

__all__ = ["TrainSettings", "TrainState", "finetune"]

WARMUP_SHARE = 0.05
"""Share of the steps in which the learning rate rises."""


@dataclass(frozen=True)
class TrainSettings:
    """How to train: `phase` ("dense" or "finetune") names it in messages and decides the order of the data; `ema` is
    the decay per step of the average of the weights that training ends with (0: the last weights). The validation split
    is scored after every `score_every` epochs, for `progress` alone."""

    phase: str
    epochs: float
    optimizer: OptimizerChoice
    seed: int = 0
    ema: float = 0.0
    speed: Speed = AS_IS
    score_every: Often = 0.0


@dataclass(frozen=True)
class TrainState:
    """Training after `epochs` passes: the network's state dict, the optimiser's moments, the averaged weights by
    parameter name, and the mean loss of the last."""

    epochs: int
    weights: Mapping[str, Tensor]
    moments: Moments
    loss: float
    average: Mapping[str, Tensor] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        """As a dictionary; tensors are shared, not copied."""
        return dict(vars(self))


def finetune(
    model: nn.Module,
    data: Data,
    task: Task,
    settings: TrainSettings,
    *,
    state: TrainState | None = None,
    save: Callable[[TrainState], object] = lambda state: None,
    teach: Teach = as_it_is,
    progress: Progress = NoProgress(),  # noqa: B008 - it has no state
) -> float:
    """Train `model` in place; the learning rate rises for 5 % of the steps and then falls in half a cosine.

    `save` is called after every epoch with a state (of copies) from which the same training goes on identically.
    The last epoch may be a fraction. `teach` as in `train_steps`. With `settings.ema` the model ends with the moving
    average of its parameters, which starts at those it came with (its BatchNorm statistics are the last ones). Scores
    on the way (see `ScoreWatch`) change nothing: the last weights are taken, never the best. Returns the mean loss of
    the last epoch (0 if there is none).

    Raises:
        TrainingError: the loss is not finite.
    """
    per_epoch = data.num_batches("train")
    steps = round(settings.epochs * per_epoch)
    names = dict(model.named_parameters())
    optimizer = make_optimizer(model, settings.optimizer, capture=settings.speed.capture)
    if state is not None:
        model.load_state_dict(dict(state.weights))
        restore_moments(model, optimizer, state.moments)
    step = step_of(TrainingStep(model, optimizer, task, teach, settings.speed))
    average = _Average(names, settings.ema, state.average if state else {})
    watch = ScoreWatch(model, data, task, settings.speed, often=settings.score_every, steps=steps)
    batches, loss = Batches(data, settings.seed, settings.phase, device_of(model)), 0.0 if state is None else state.loss
    for epoch in range(0 if state is None else state.epochs, -(-steps // per_epoch)):
        first = epoch * per_epoch

        def set_rate(number: int, first: int = first) -> None:
            factor = cosine(first + number, steps, warmup=round(WARMUP_SHARE * steps))
            set_learning_rate(optimizer, settings.optimizer.learning_rate * factor)

        count = min(per_epoch, steps - first)
        stretch = Stretch(settings.phase, first, steps)
        taken = batches.take(count, first_epoch=epoch)
        hooks: dict[str, Any] = {"before": set_rate, "after": average.update, "look": watch.since(first)}
        how: dict[str, Any] = {"speed": settings.speed, "step": step, "progress": progress}
        loss = train_steps(model, optimizer, taken, task, stretch, **hooks, **how)
        save(replace(_state_of(model, optimizer, epoch + 1, loss), average=average.values()))
    average.give()
    return loss


class _Average:
    """The exponential moving average of parameters by name; nothing with a decay of 0.

    Args:
        start: what the average was when training was left.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float, start: Mapping[str, Tensor]) -> None:
        self._parameters = dict(parameters) if decay else {}
        self._average = [start.get(name, p).detach().to(p.device, copy=True) for name, p in self._parameters.items()]
        self._mix = get_ema_multi_avg_fn(decay)

    def update(self, step: int) -> None:
        """Training has taken a step."""
        if self._average:
            self._mix(self._average, [p.detach() for p in self._parameters.values()], step)

    def values(self) -> dict[str, Tensor]:
        """A copy of the averages."""
        return {name: mean.clone() for name, mean in zip(self._parameters, self._average, strict=True)}

    def give(self) -> None:
        """Put the averages in the parameters' place."""
        with torch.no_grad():
            for parameter, mean in zip(self._parameters.values(), self._average, strict=True):
                parameter.copy_(mean)


def _state_of(model: nn.Module, optimizer: torch.optim.Optimizer, epochs: int, loss: float) -> TrainState:
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    return TrainState(epochs, weights, moments_of(model, optimizer), loss)
