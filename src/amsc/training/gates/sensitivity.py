"""How much the loss depends on each channel and block: the diagonal Fisher information of their gates."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from amsc.borrowing import borrowed
from amsc.data import Data, batch_size, moved, some_examples, some_rows
from amsc.parallel import in_turn, shared
from amsc.penalty import Penalty, gates_from_gradients
from amsc.tasks import Task
from amsc.training.gates.apart import can_split_inputs
from amsc.training.gates.examples import derivative_batches
from amsc.training.steps.step import AS_IS, Speed, device_of, forward

__all__ = ["gate_sensitivities"]

BATCHES = 6
"""Training batches looked at, evenly over an epoch."""
CHUNK = 16
"""Examples per gradient: fewer come closer to the gradient of every example, and take longer."""
WHOLE_BATCHES = 24
"""Most training batches looked at where each gives one gradient only."""


def gate_sensitivities(
    model: nn.Module, penalty: Penalty, data: Data, task: Task, *, speed: Speed = AS_IS
) -> tuple[Tensor, Tensor]:
    """Mean square of the loss's derivative by a gate on each channel and each block of `penalty` (Theis et al. 2018,
    Molchanov et al. 2019), over small chunks of training batches, not augmented, BatchNorm in eval mode; up to a factor
    that all have in common.

    Where a batch cannot be taken apart (see `can_split_inputs`), more batches are taken, each whole, and what chunks
    would give is estimated from their gradients, see `_sum_of_squares`. `speed` says how to compute. `model` comes back
    as it was, and frozen parameters count like trained ones. Shapes: channel, block, where the network is.
    """
    device = device_of(model)
    with borrowed(model), _trained(penalty.parameters()), torch.enable_grad():
        inputs, target = next(derivative_batches(data, task, 1))
        size = batch_size(target)
        is_split = size > CHUNK and can_split_inputs(model, task, inputs, target)
        count = BATCHES if is_split else min(WHOLE_BATCHES, BATCHES * -(-size // CHUNK))

        def own_gradients() -> Iterator[tuple[int, Tensor]]:
            pieces = _pieces(derivative_batches(data, task, count), is_split=is_split)
            for number, (inputs, target) in in_turn(pieces):
                model.zero_grad()
                with speed.computing(device):
                    loss = task.loss(forward(model, inputs, device), moved(target, device))
                loss.backward()
                yield number, torch.cat(gates_from_gradients(penalty.groups))

        gradients = [gradient.to(device) for gradient in shared(own_gradients)]
    squares = _sum_of_squares(gradients, chunks=1 if is_split else max(1.0, size / CHUNK))
    return squares[: len(penalty.channels)], squares[len(penalty.channels) :]


def _sum_of_squares(gradients: Sequence[Tensor], *, chunks: float) -> Tensor:
    """The sum of squares that as many gradients over single chunks would have, from gradients over `chunks` of them.

    With independent examples a gradient over m chunks has the mean of one over a single chunk, and a variance m times
    smaller. So E[chunk^2] = E[whole^2] + (m - 1) Var[whole]. Shapes: gate each; the result: gate."""
    squares = total = torch.zeros_like(gradients[0])
    for gradient in gradients:
        squares, total = squares + gradient.square(), total + gradient
    if chunks == 1 or len(gradients) < 2:
        return squares
    variance = (squares - total.square() / len(gradients)) / (len(gradients) - 1)
    return squares + (chunks - 1) * len(gradients) * variance.clamp(min=0)


def _pieces(batches: Iterable[tuple[Any, Any]], *, is_split: bool) -> Iterator[tuple[Any, Any]]:
    """Chunks of the batches; whole ones where they are small or are not to be split."""
    for inputs, target in batches:
        if not is_split or batch_size(target) <= CHUNK:
            yield inputs, target
            continue
        for start in range(0, batch_size(target), CHUNK):
            rows = slice(start, start + CHUNK)
            yield some_rows(inputs, rows), some_examples(target, rows)


@contextmanager
def _trained(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """With gradients for all of `parameters`; afterwards those are frozen again that were."""
    frozen = [parameter for parameter in parameters if not parameter.requires_grad]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
