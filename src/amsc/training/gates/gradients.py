"""Derivatives of each example's loss by gates on channels and blocks: from one backward pass where that is exact."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from amsc.borrowing import borrowed
from amsc.data import Data, batch_size, spread_batches
from amsc.errors import DataError, TrainingError
from amsc.parallel import in_turn, shared
from amsc.penalty import Coordinates
from amsc.progress import NoProgress, Progress
from amsc.structure.structure import Structure
from amsc.tasks import DrawingTask, Task
from amsc.training.gates.examples import derivative_batches
from amsc.training.gates.runs import GateRuns
from amsc.training.removal.removed import Leaf

__all__ = ["GateGradients", "gate_gradients"]

MEANS = 64
"""Most batches that are looked at where only the mean loss of a whole batch has derivatives."""


BatchSource = Callable[[int], Iterator[tuple[Any, Any]]]
"""At most so many training batches."""


@dataclass(frozen=True, eq=False)
class GateGradients:
    """`gradients[i, g]` is the derivative of the loss of example i by gate g, at 1: first the gates of `blocks`, then
    those of `channels`. Shape: (example, gate), float64 on the CPU. `is_batched` tells whether many examples shared a
    backward pass. Where examples cannot be told apart, rows with the same mean and covariance stand for them."""

    gradients: Tensor
    blocks: tuple[str, ...]
    channels: tuple[Leaf, ...]
    is_batched: bool

    def column(self, gate: str | Leaf) -> int:
        """Where the gate of a block (by name) or of a channel stands."""
        if isinstance(gate, str):
            return self.blocks.index(gate)
        return len(self.blocks) + self.channels.index(gate)


def gate_gradients(
    model: nn.Module,
    structure: Structure,
    coordinates: Coordinates,
    stand_ins: Mapping[str, nn.Module],
    data: Data,
    task: Task,
    *,
    examples: int,
    progress: Progress = NoProgress(),  # noqa: B008 - it has no state
) -> GateGradients:
    """Derivatives of the losses of training examples by a gate on every penalised channel and block.

    A channel's gate multiplies its coordinates (see `Coordinates`), so that the mean over a batch is what
    `gates_from_gradients` gives. A block's gate s makes of its output y the output r + s (y - r), where r is what is
    returned once the block is gone; a block whose channels go with it has the sum of their derivatives. BatchNorm runs
    in eval mode, images are not augmented, examples lie evenly over an epoch.

    Where the parameters of all channels belong to ordinary layers (convolutions, linear layers, normalisations), every
    example of a batch gets gates of its own on these layers' outputs, and one backward pass gives all derivatives. This
    is tried on a few examples first; where it is not the derivative of each example alone (the loss couples examples, a
    parameter is used elsewhere), examples are taken one by one. Where a batch cannot be taken apart (the inputs have
    their examples along another axis, the network couples them; see `can_split_inputs`), it stays whole, and each
    example's loss among the others has a backward pass of its own. Where the outputs cannot be taken apart either, only
    mean losses of batches have derivatives, and `_rows_like_examples` makes the rows. `model` comes back as it was.

    Of a `DrawingTask` the rows have the mean of the losses as they are, and the covariance of those of drawn targets.

    Args:
        stand_ins: for each of `coordinates.blocks` a module that returns what is left where the block is gone.
        examples: how many are looked at, at most all there are.

    Raises:
        DataError: there is no training example.
        TrainingError: a derivative is not finite.
    """
    limit = min(examples, data.num_examples("train"))
    first = next(derivative_batches(data, task, 1), None) if limit > 0 else None
    if first is None:
        raise DataError(f"the training split of {data.name} is empty; a scan needs examples to take derivatives on")
    with borrowed(model), torch.enable_grad():
        runs = GateRuns(model, structure, coordinates, stand_ins, task, first)
        gradients = _rows(runs, data, partial(derivative_batches, data, task), limit, progress)
        if isinstance(task, DrawingTask):  # with the mean that is known, in the place of what was drawn
            known = _rows(runs, data, partial(spread_batches, data, "train"), limit, progress)
            gradients += known.mean(0) - gradients.mean(0)
    if not bool(torch.isfinite(gradients).all()):
        raise TrainingError(
            "the loss has derivatives that are not finite on the training examples; check that the data and the "
            "model's weights are finite, and lower the learning rate of what has trained it"
        )
    return GateGradients(gradients, coordinates.blocks, coordinates.channels, runs.way == "together")


def _rows(runs: GateRuns, data: Data, batches: BatchSource, limit: int, progress: Progress) -> Tensor:
    rows = _rows_of_means if runs.way == "mean" else _rows_of_examples
    return rows(runs, data, batches, limit, progress)


def _rows_of_examples(runs: GateRuns, data: Data, batches: BatchSource, limit: int, progress: Progress) -> Tensor:
    smallest = max(1, data.num_examples("train") // data.num_batches("train"))

    def wanted() -> Iterator[tuple[Any, Any, int, int]]:
        """Batches, how many of their examples are looked at, and how many came before."""
        done = 0
        for inputs, target in batches(-(-limit // smallest)):
            count = min(limit - done, batch_size(target))
            yield inputs, target, count, done
            done += count
            if done >= limit:
                return

    def own_rows() -> Iterator[tuple[int, Tensor]]:
        for number, (inputs, target, count, done) in in_turn(wanted()):
            parts: list[Tensor] = []
            for part in runs.rows(inputs, target, count):
                parts.append(part)
                done += len(part)
                progress.update("gates", done, limit)
            yield number, torch.cat(parts)

    return torch.cat(shared(own_rows))


def _rows_of_means(runs: GateRuns, data: Data, batches: BatchSource, limit: int, progress: Progress) -> Tensor:
    """Rows from the mean losses of batches: as many as examples were asked for, at most `MEANS`."""
    count = min(limit, MEANS, data.num_batches("train"))

    def own_means() -> Iterator[tuple[int, tuple[Tensor, int]]]:
        for number, (inputs, target) in in_turn(batches(count)):
            yield number, (torch.cat([*runs.rows(inputs, target, 0)]), batch_size(target))
            progress.update("gates", number + 1, count)

    found = shared(own_means)
    means = torch.cat([mean for mean, _ in found])
    return _rows_like_examples(means, sum(size for _, size in found) / len(means))


def _rows_like_examples(means: Tensor, size: float) -> Tensor:
    """Rows with the mean and the covariance of single examples, from means over `size` independent examples each.

    The covariance of such means is that of examples divided by their number. Shapes: (batch, gate) both."""
    if len(means) < 2:
        return means
    centre = means.mean(0)
    return centre + math.sqrt(size * len(means) / (len(means) - 1)) * (means - centre)
