"""How much the loss depends on each channel and block: the diagonal Fisher information of their gates."""

import operator
from itertools import islice

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from amsc.borrowing import borrowed
from amsc.data import Data, batch_size, moved, some_examples
from amsc.penalty import Penalty, gates_from_gradients
from amsc.tasks import Task
from amsc.training.steps.loop import AS_IS, Speed, device_of, forward

__all__ = ["gate_sensitivities"]

BATCHES = 6
"""Training batches looked at, evenly over an epoch."""
CHUNK = 16
"""Examples per gradient: fewer come closer to the gradient of every example, and take longer."""


def gate_sensitivities(
    model: nn.Module, penalty: Penalty, data: Data, task: Task, *, speed: Speed = AS_IS
) -> tuple[Tensor, Tensor]:
    """Mean square of the loss's derivative by a gate on each channel and each block of `penalty` (Theis et al. 2018,
    Molchanov et al. 2019), over small chunks of training batches, not augmented, BatchNorm in eval mode.

    `speed` says how to compute. `model` comes back as it was. Shapes: channel, block.
    """
    device = device_of(model)
    leaves, blocks = torch.zeros(len(penalty.channels)), torch.zeros(len(penalty.blocks))
    stride = max(1, data.num_batches("train") // BATCHES)
    with borrowed(model), torch.enable_grad():
        for inputs, target in islice(data.batches("train"), 0, stride * BATCHES, stride):
            for start in range(0, batch_size(target), CHUNK):
                rows = slice(start, start + CHUNK)
                model.zero_grad()
                part = pytree.tree_map_only(Tensor, operator.itemgetter(rows), inputs)
                with speed.computing(device):
                    loss = task.loss(forward(model, part, device), moved(some_examples(target, rows), device))
                loss.backward()
                leaf, block = gates_from_gradients(penalty.groups)
                leaves, blocks = leaves + leaf.cpu().square(), blocks + block.cpu().square()
    return leaves, blocks
