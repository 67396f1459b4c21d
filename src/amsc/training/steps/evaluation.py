"""How good a network is, and the BatchNorm statistics it needs for that."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from amsc.borrowing import borrowed
from amsc.data import Data, batch_size, inputs_of, moved, spread_batches
from amsc.errors import DataError, UndefinedScoreError
from amsc.parallel import in_turn, shared, summed, told_of_failure, world
from amsc.tasks import Task
from amsc.training.steps.loop import told_of
from amsc.training.steps.step import AS_IS, Speed, device_of, forward

__all__ = ["Evaluation", "evaluate", "mean_loss", "reestimate_batchnorm", "scores_of"]


@dataclass(frozen=True)
class Evaluation:
    """The score of each example (float32 on the CPU, shape (example,), in the data's order) and their mean."""

    per_example: Tensor
    score: float

    def worth(self, task: Task) -> Tensor:
        """The scores (float64), more being better whatever the task says."""
        scores = self.per_example.double()
        return scores if task.higher_is_better else -scores


def evaluate(model: nn.Module, data: Data, split: str, task: Task, *, speed: Speed = AS_IS) -> Evaluation:
    """Scores of `model` in eval mode on a split of the data; the model is left as it was. `speed` says how to compute.
    Several processes take batches in turn.

    Raises:
        DataError: the split is empty, the model fails on a batch of it, or a score is not finite, or there is not one
            for each example.
    """
    device = device_of(model)

    def own_scores() -> Iterator[tuple[int, Tensor]]:
        with borrowed(model), speed.computing(device), told_of(f"a batch of the {split} split of {data.name}"):
            for number, (inputs, target) in in_turn(data.batches(split)):
                yield number, scores_of(task, forward(model, inputs, device), moved(target, device))

    parts = shared(own_scores)
    if not parts or not sum(len(part) for part in parts):
        raise DataError(
            f"the {split} split of {data.name} is empty; amsc needs at least one example to judge a network"
        )
    per_example = torch.cat(parts).float().cpu()
    if not bool(torch.isfinite(per_example).all()):
        bad = int((~torch.isfinite(per_example)).sum())
        raise UndefinedScoreError(
            f"{task.name} is not a finite number for {bad} of {len(per_example)} examples of the {split} split of "
            f"{data.name}, so that networks cannot be compared; check the task's per_example and the data"
        )
    return Evaluation(per_example, float(per_example.double().mean()))


def scores_of(task: Task, output: Any, target: Any) -> Tensor:
    """The scores of a batch, one for each example.

    Raises:
        DataError: the task gives something else.
    """
    scores, wanted = task.per_example(output, target), batch_size(target)
    if not isinstance(scores, Tensor) or scores.shape != (wanted,):
        came = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise DataError(f"per_example of the task must give a tensor of shape ({wanted},), one score each; got {came}")
    return scores


def mean_loss(model: nn.Module, data: Data, task: Task, *, batches: int = 20) -> float:
    """Mean loss in eval mode on some training batches, not augmented; the model is left as it was."""
    device = device_of(model)
    with borrowed(model):
        losses = [
            task.loss(forward(model, inputs, device), moved(target, device))
            for inputs, target in spread_batches(data, "train", batches)
        ]
    return float(torch.stack(losses).cpu().double().mean()) if losses else 0.0


def reestimate_batchnorm(model: nn.Module, data: Data, *, batches: int = 20, speed: Speed = AS_IS) -> None:
    """Replace the running statistics of every BatchNorm by plain averages over `batches` training batches, in place.

    The batches are not augmented and lie evenly over an epoch. Only BatchNorm runs in train mode (dropout
    does not); modes and momenta come back as they were. Weights, gradients and random generators are left alone.
    `speed` says how to compute.
    """
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    if not layers:
        return
    device = device_of(model)

    def look() -> int:
        used = 0
        for _, (inputs, target) in in_turn(spread_batches(inputs_of(data), "train", batches)):
            if batch_size(target) > 1:  # a single example has no deviation
                forward(model, inputs, device)
                used += 1
        return used

    with _collecting(model, layers), torch.no_grad(), speed.computing(device):
        _pool(layers, told_of_failure(look))


def _pool(layers: list[_BatchNorm], used: int) -> None:
    """Take the averages over the batches of all processes, of which this one has `used` so many."""
    if world().is_alone:
        return
    for layer in layers:
        kept = [tensor for tensor in (layer.running_mean, layer.running_var) if tensor is not None]
        count, *sums = summed([torch.tensor(float(used), device=kept[0].device), *(used * tensor for tensor in kept)])
        for tensor, total in zip(kept, sums, strict=True):
            if count:
                tensor.copy_(total / count)


@contextmanager
def _collecting(model: nn.Module, layers: list[_BatchNorm]) -> Iterator[None]:
    """`layers` in train mode with fresh statistics, all else in eval mode; afterwards modes and momenta as before."""
    modes = [(module, module.training) for module in model.modules()]
    momenta = [layer.momentum for layer in layers]
    counts = [None if layer.num_batches_tracked is None else layer.num_batches_tracked.clone() for layer in layers]
    model.eval()
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # a cumulative average
            layer.training = True
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for layer, momentum, count in zip(layers, momenta, counts, strict=True):
            layer.momentum = momentum
            if count is not None and layer.num_batches_tracked is not None:
                layer.num_batches_tracked.copy_(count)
