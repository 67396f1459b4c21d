"""Training under a regularizer: ordinary steps at a constant learning rate, each followed by the regularizer's own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from amsc.data import Data
from amsc.progress import NoProgress, Progress
from amsc.regularizers.regularizer import Regularizer
from amsc.tasks import Task
from amsc.training.steps.evaluation import reestimate_batchnorm
from amsc.training.steps.finetune import TrainSettings
from amsc.training.steps.loop import Batches, Stretch, train_steps
from amsc.training.steps.optimizers import Moments, OptimizerChoice, make_optimizer, moments_of, restore_moments
from amsc.training.steps.proximal import accumulated_step_size
from amsc.training.steps.step import device_of

__all__ = ["RegularizedState", "num_steps", "step_size_of", "train_regularized"]


@dataclass(frozen=True)
class RegularizedState:
    """Training after `epochs` passes: the network's state dict, the optimiser's moments, and what the regularizer has
    to remember."""

    epochs: int
    weights: Mapping[str, Tensor]
    moments: Moments
    memory: Mapping[str, Tensor] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        """As a dictionary; tensors are shared, not copied."""
        return dict(vars(self))


def num_steps(data: Data, epochs: float) -> int:
    """The steps of so many epochs, at least one."""
    return max(1, round(epochs * data.num_batches("train")))


def step_size_of(choice: OptimizerChoice) -> float:
    """How far one gradient moves the weights in the end: lr / (1 - momentum) with SGD, lr with AdamW, of whose steps a
    regularizer is decoupled as its weight decay is."""
    if choice.kind == "adamw":
        return choice.learning_rate
    return accumulated_step_size({"lr": choice.learning_rate, "momentum": choice.momentum, "dampening": 0.0})


def train_regularized(
    model: nn.Module,
    data: Data,
    task: Task,
    settings: TrainSettings,
    regularizer: Regularizer,
    *,
    state: RegularizedState | None = None,
    save: Callable[[RegularizedState], object] = lambda state: None,
    progress: Progress = NoProgress(),  # noqa: B008 - it has no state
) -> float:
    """Train `model`, to which `regularizer` is bound, in place; BatchNorm is estimated anew at the end.

    `save` is called after every epoch with a state (of copies) from which the same training goes on identically.
    Returns the mean loss of the last epoch.

    Raises:
        TrainingError: the loss is not finite.
    """
    per_epoch, steps = data.num_batches("train"), num_steps(data, settings.epochs)
    speed = replace(settings.speed, capture=False)  # what is done behind a step changes from step to step
    optimizer = make_optimizer(model, settings.optimizer)
    if state is not None:
        _go_on(model, optimizer, regularizer, state)
    speed.arrange(model)
    batches, loss = Batches(data, settings.seed, settings.phase, device_of(model)), 0.0
    size = step_size_of(settings.optimizer)
    for epoch in range(0 if state is None else state.epochs, -(-steps // per_epoch)):
        first = epoch * per_epoch
        count = min(per_epoch, steps - first)

        def pull(number: int, first: int = first) -> None:
            regularizer.apply(first + number, size)

        taken, stretch = batches.take(count, first_epoch=epoch), Stretch(settings.phase, first, steps)
        loss = train_steps(model, optimizer, taken, task, stretch, after=pull, speed=speed, progress=progress)
        weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        save(RegularizedState(epoch + 1, weights, moments_of(model, optimizer), regularizer.memory()))
    reestimate_batchnorm(model, data, speed=speed)
    return loss


def _go_on(model: nn.Module, optimizer: Optimizer, regularizer: Regularizer, state: RegularizedState) -> None:
    model.load_state_dict(dict(state.weights))
    restore_moments(model, optimizer, state.moments)
    regularizer.recall(state.memory)
