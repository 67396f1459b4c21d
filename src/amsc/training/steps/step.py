"""One training step: forward, loss, backward and the optimiser's step on a batch."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from amsc.borrowing import call_arguments, forward_failed
from amsc.data import batch_size, may_be_split, moved, some_examples, some_rows
from amsc.errors import AmscError, DataError, TrainingError
from amsc.parallel import SharedNorms, share_gradients, world
from amsc.tasks import Task
from amsc.training.steps.parts import Parts

__all__ = ["AS_IS", "Optimizer", "Speed", "Step", "Teach", "TrainingStep", "as_it_is", "device_of", "forward"]

OUT_OF_MEMORY = "DefaultCPUAllocator: can't allocate memory"
"""What torch says, in a plain RuntimeError, where the memory of the CPU is used up."""
Step = Callable[[Any, Any], Tensor]
"""Takes (inputs, targets) and returns the loss, detached and still on the device."""
Teach = Callable[[Any, Any, Tensor], Tensor]
"""The loss to minimise, from (inputs, output, the task's loss)."""


def as_it_is(inputs: Any, output: Any, loss: Tensor) -> Tensor:
    """The task's loss."""
    return loss


class Optimizer(Protocol):
    """What training needs of an optimiser; torch's own and `ProximalStep` have it."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Groups of parameters with their options, as in torch."""

    def step(self) -> Any:
        """Change the parameters."""

    def zero_grad(self) -> None:
        """Forget the gradients."""


@dataclass(frozen=True)
class Speed:
    """How training computes: with `precision` "bfloat16" forward and loss run under autocast (weights stay as they
    are); with `channels_last` the weights of 2-d convolutions lie in that order; with `capture` the steps are recorded
    once and replayed (see `CapturedStep`)."""

    precision: str = "float32"
    channels_last: bool = False
    capture: bool = False

    def arrange(self, model: nn.Module) -> None:
        """Lay the weights out, in place."""
        if self.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def computing(self, device: torch.device) -> torch.autocast:
        """The context of a forward pass."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16")


AS_IS = Speed()


@dataclass(frozen=True, eq=False)
class TrainingStep:
    """A step of `optimizer` on the loss of a batch, which `teach` may mix with another; a `Step`. Where memory runs out
    the batch is computed in `parts`, see there.

    Several processes take a part of the batch each, and the same step: BatchNorm and gradients are those of all of it.
    """

    model: nn.Module
    optimizer: Optimizer
    task: Task
    teach: Teach = as_it_is
    speed: Speed = AS_IS
    parts: Parts = field(default_factory=Parts)

    def __call__(self, inputs: Any, target: Any) -> Tensor:
        """Take the step."""
        loss = self._gradients(inputs, target)
        while loss is None:
            loss = self._gradients(inputs, target)
        loss = share_gradients(self.model.parameters(), loss)
        self.optimizer.step()
        return loss

    def _gradients(self, inputs: Any, target: Any) -> Tensor | None:
        """The loss of a batch, with whose gradients the parameters are left; None where memory ran out, and the batch
        has to be tried in more parts."""
        self.optimizer.zero_grad()
        inputs, target, weight = _own_part(inputs, target)
        try:
            parts = self.parts.of(inputs, target)
            losses = [self._backward(own, wanted, share * weight) for own, wanted, share in parts]
        except torch.OutOfMemoryError as error:
            why = str(error)  # not the error itself, which would keep alive what there is no room for
        else:
            return losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        if not world().is_alone:  # the others cannot know
            raise TrainingError(f"out of memory: {why}; take a smaller batch_size, or more processes")
        self.parts.double(inputs, target, why)
        return None

    def _backward(self, inputs: Any, target: Any, share: float) -> Tensor:
        """Add the gradients of this share of a batch to what there is; its share of the loss."""
        device = device_of(self.model)
        with self.speed.computing(device), nullcontext() if world().is_alone else SharedNorms():
            output = forward(self.model, inputs, device)
            loss = self.teach(inputs, output, self.task.loss(output, moved(target, device)))
        if share != 1.0:
            loss = loss * share
        loss.backward()
        return loss.detach()


def _own_part(inputs: Any, target: Any) -> tuple[Any, Any, float]:
    """The part of a batch that this process takes, and what its mean loss weighs, so that the mean over processes is
    that of the whole batch.

    Raises:
        DataError: the batch cannot be shared.
    """
    here = world()
    if here.is_alone:
        return inputs, target, 1.0
    count = batch_size(target)
    if count < here.size or not may_be_split(inputs, target):
        raise DataError(
            f"{here.size} processes share the examples of each batch, and one of {count} cannot be shared: all inputs "
            "need the examples along their first axis, and a batch as many as there are processes; use one process, "
            "or other batches"
        )
    edges = [count * rank // here.size for rank in (here.rank, here.rank + 1)]
    rows = slice(*edges)
    return some_rows(inputs, rows), some_examples(target, rows), here.size * (edges[1] - edges[0]) / count


def forward(model: nn.Module, inputs: Any, device: torch.device) -> Any:
    """The model's output for one batch of inputs, moved to its device.

    Raises:
        InputError: forward fails on them.
    """
    args, kwargs = call_arguments(inputs)
    try:
        return model(*moved(args, device), **moved(kwargs, device))
    except (AmscError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the user's forward may raise anything
        if OUT_OF_MEMORY in str(error):
            raise torch.OutOfMemoryError(str(error)) from error
        raise forward_failed(model, "a batch", (args, kwargs), error) from error


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first parameter is; the CPU if it has none."""
    return next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
