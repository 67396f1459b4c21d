"""Ordinary training with a cosine schedule, for the dense network before and the small one after; resumable."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from amsc.data import Data
from amsc.tasks import Task
from amsc.training.loop import Batches, Stretch, cosine, set_learning_rate, train_steps
from amsc.training.progress import NoProgress, Progress

__all__ = ["TrainSettings", "TrainState", "finetune"]

WARMUP_SHARE = 0.05
"""Share of the steps in which the learning rate rises."""


@dataclass(frozen=True)
class TrainSettings:
    """How to train: `phase` ("dense" or "finetune") names it in messages and decides the order of the data."""

    phase: str
    epochs: float
    learning_rate: float
    momentum: float = 0.9
    weight_decay: float = 1e-4
    seed: int = 0


@dataclass(frozen=True)
class TrainState:
    """Training after `epochs` passes: the network's state dict, momentum by parameter name, mean loss of the last."""

    epochs: int
    weights: Mapping[str, Tensor]
    momentum: Mapping[str, Tensor]
    loss: float

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
    progress: Progress = NoProgress(),  # noqa: B008 - it has no state
) -> float:
    """Train `model` in place by SGD, the learning rate rising for 5 % of the steps and then falling in half a cosine.

    `save` is called after every epoch with a state (of copies) from which the same training goes on identically.
    The last epoch may be a fraction. Returns the mean loss of the last epoch (0 if there is none).

    Raises:
        TrainingError: the loss is not finite.
    """
    per_epoch = data.num_batches("train")
    steps = round(settings.epochs * per_epoch)
    names = dict(model.named_parameters())
    optimizer = torch.optim.SGD(
        [parameter for parameter in names.values() if parameter.requires_grad],
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    if state is not None:
        model.load_state_dict(dict(state.weights))
        for name, buffer in state.momentum.items():
            optimizer.state[names[name]]["momentum_buffer"] = buffer.to(names[name].device, copy=True)
    batches, loss = Batches(data, settings.seed, settings.phase), 0.0 if state is None else state.loss
    for epoch in range(0 if state is None else state.epochs, -(-steps // per_epoch)):
        first = epoch * per_epoch

        def set_rate(step: int, first: int = first) -> None:
            factor = cosine(first + step, steps, warmup=round(WARMUP_SHARE * steps))
            set_learning_rate(optimizer, settings.learning_rate * factor)

        count = min(per_epoch, steps - first)
        stretch = Stretch(settings.phase, first, steps)
        taken = batches.take(count, first_epoch=epoch)
        loss = train_steps(model, optimizer, taken, task, stretch, before=set_rate, progress=progress)
        save(_state_of(model, optimizer, epoch + 1, loss))
    return loss


def _state_of(model: nn.Module, optimizer: torch.optim.Optimizer, epochs: int, loss: float) -> TrainState:
    momentum = {
        name: optimizer.state[parameter]["momentum_buffer"].clone()
        for name, parameter in model.named_parameters()
        if optimizer.state.get(parameter, {}).get("momentum_buffer") is not None
    }
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    return TrainState(epochs, weights, momentum, loss)
