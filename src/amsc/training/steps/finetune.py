"""Ordinary training with a cosine schedule, for the dense network before and the small one after; resumable."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from amsc.data import Data
from amsc.errors import NonFiniteLossError, TrainingError
from amsc.progress import NoProgress, Progress
from amsc.tasks import Task
from amsc.training.steps.captured import step_of
from amsc.training.steps.loop import Batches, Stretch, cosine, set_learning_rate, train_steps
from amsc.training.steps.optimizers import Moments, OptimizerChoice, make_optimizer, moments_of, restore_moments
from amsc.training.steps.pause import pause_from_plain
from amsc.training.steps.scoring import Often, ScoreWatch
from amsc.training.steps.step import AS_IS, Speed, Teach, TrainingStep, as_it_is, device_of

__all__ = ["MOST_HALVINGS", "TrainSettings", "TrainState", "finetune", "given_up"]

WARMUP_SHARE = 0.05
"""Share of the steps in which the learning rate rises."""
MOST_HALVINGS = 3
"""How often the learning rate is halved because a loss was no finite number."""


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
    parameter name, and the mean loss of the last. `halved` is how often the learning rate
    was halved because a loss was no number. `pause` is where the next epoch was left, if it was: a `Pause` and weights,
    moments and average as they were then, all as plain data."""

    epochs: int
    weights: Mapping[str, Tensor]
    moments: Moments
    loss: float
    average: Mapping[str, Tensor] = field(default_factory=dict)
    halved: int = 0
    pause: Mapping[str, Any] | None = None

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

    `save` is called after every epoch, and within one where somebody wishes to stop (see `putting_off`), with a state
    (of copies) from which the same training goes on identically.
    The last epoch may be a fraction. `teach` as in `train_steps`. With `settings.ema` the model ends with the moving
    average of its parameters, which starts at those it came with (its BatchNorm statistics are the last ones). Scores
    on the way (see `ScoreWatch`) change nothing: the last weights are taken, never the best. Returns the mean loss of
    the last epoch (0 if there is none).

    A loss that is no finite number takes training back to the end of the epoch before, and on from there at half the
    learning rate, at most `MOST_HALVINGS` times.

    Raises:
        TrainingError: the loss is still not finite then; the model is as it was at the end of the last good epoch.
    """
    course = _Course(model, data, task, settings, teach, progress)
    here = course.begin(state)
    while here.epochs < course.epochs:
        try:
            loss = course.epoch(here, save)
        except NonFiniteLossError as error:
            here = course.taken_back(here, error)
            continue
        here = course.after(here, loss)
        save(here)
    course.average.give()
    return here.loss


class _Course:
    """A network in training, epoch by epoch."""

    def __init__(
        self, model: nn.Module, data: Data, task: Task, settings: TrainSettings, teach: Teach, progress: Progress
    ) -> None:
        self._model, self._data, self._task = model, data, task
        self._settings, self._teach, self._progress = settings, teach, progress
        self._per_epoch = data.num_batches("train")
        self._steps = round(settings.epochs * self._per_epoch)
        self.epochs = -(-self._steps // self._per_epoch)
        self._watch = ScoreWatch(model, data, task, settings.speed, often=settings.score_every, steps=self._steps)

    def begin(self, state: TrainState | None) -> TrainState:
        """Put network, optimiser and average where `state` says, if there is one; the state that this is."""
        names, settings = dict(self._model.named_parameters()), self._settings
        self._optimizer = make_optimizer(self._model, settings.optimizer, capture=settings.speed.capture)
        now: Mapping[str, Any] = {} if state is None else state.pause or vars(state)
        if now:
            self._model.load_state_dict(dict(now["weights"]))
            restore_moments(self._model, self._optimizer, now["moments"])
        step = TrainingStep(self._model, self._optimizer, self._task, self._teach, settings.speed)
        self._step = step_of(step)
        self.average = _Average(names, settings.ema, now.get("average", {}))
        return state or TrainState(0, loss=0.0, **self._now())

    def epoch(self, here: TrainState, save: Callable[[TrainState], object]) -> float:
        """Train for the epoch after `here`, or what is left of it; the mean loss of all of it."""
        first = here.epochs * self._per_epoch
        count = min(self._per_epoch, self._steps - first)
        batches = Batches(self._data, self._settings.seed, self._settings.phase, device_of(self._model))

        def set_rate(number: int) -> None:
            factor = cosine(first + number, self._steps, warmup=round(WARMUP_SHARE * self._steps))
            set_learning_rate(self._optimizer, self._rate(here) * factor)

        return train_steps(
            self._model,
            self._optimizer,
            batches.take(count, first_epoch=here.epochs),
            self._task,
            Stretch(self._settings.phase, first, self._steps),
            before=set_rate,
            after=self.average.update,
            look=self._watch.since(first),
            speed=self._settings.speed,
            step=self._step,
            pause=pause_from_plain(here.pause),
            leave=lambda pause: save(replace(here, pause={**pause.to_plain(), **self._now()})),
            progress=self._progress,
        )

    def after(self, here: TrainState, loss: float) -> TrainState:
        """The state one epoch after `here`."""
        return replace(here, epochs=here.epochs + 1, loss=loss, pause=None, **self._now())

    def _now(self) -> dict[str, Any]:
        """A copy of the weights, of what the optimiser remembers, and of the average."""
        weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in self._model.state_dict().items()}
        return {
            "weights": weights,
            "moments": moments_of(self._model, self._optimizer),
            "average": self.average.values(),
        }

    def taken_back(self, here: TrainState, error: NonFiniteLossError) -> TrainState:
        """Back at the beginning of the epoch, to go on at half the learning rate.

        Raises:
            TrainingError: it has been halved often enough.
        """
        here = replace(here, pause=None)
        self.begin(here)
        if here.halved == MOST_HALVINGS:
            raise TrainingError(given_up(str(error), f"the network as it was after {here.epochs} epochs")) from error
        here = replace(here, halved=here.halved + 1)
        first = here.epochs * self._per_epoch
        self._progress.update(self._settings.phase, first, self._steps, rolled_back=self._rate(here))
        return here

    def _rate(self, here: TrainState) -> float:
        """The learning rate that the schedule is a factor of."""
        return self._settings.optimizer.learning_rate * 0.5**here.halved


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


def given_up(why: str, kept: str) -> str:
    """Words for training that was taken back often enough; `kept` is what is left of it."""
    return (
        f"{why}. It was taken back {MOST_HALVINGS} times, each time to go on at half the learning rate; {kept} is kept"
    )
