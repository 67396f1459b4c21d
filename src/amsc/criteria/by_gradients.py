"""Prices of channels by derivatives of the loss by gates that multiply them, each at 1.

A channel that several layers make has one gate, on all of them at once.
"""

import torch
from torch import Tensor

from amsc.criteria.scene import Scene
from amsc.data import batch_size_of
from amsc.structure.names import holder
from amsc.structure.structure import ChannelGroup, Structure

__all__ = ["fisher", "on_batches", "taylor"]


def taylor(scene: Scene, group: ChannelGroup) -> Tensor:
    """The squared derivative of a batch's mean loss by each channel's gate, mean over batches. Shape: channel.

    Molchanov, Mallya, Tyree, Frosio and Kautz 2019 (Importance estimation for neural network pruning): the
    first-order (g z)^2 on gates z = 1 behind BatchNorm, which they found best, in the place of (sum g w)^2."""
    return on_batches(scene, [(group.name, channel) for channel in range(group.size)])


def fisher(scene: Scene, group: ChannelGroup) -> Tensor:
    """The mean square of each example's derivative by a channel's gate, for each number less that is written. Shape:
    channel.

    Liu, Zhang, Kuang, Zhou, Xue, Wang, Chen, Yang, Liao and Zhang 2021 (Group Fisher pruning): channels of coupled
    layers share a gate, and importance is divided by the memory of the activations saved."""
    rows = scene.gate_columns([(group.name, channel) for channel in range(group.size)])
    return rows.square().mean(0) / max(1, _written(scene.structure, group))


def on_batches(scene: Scene, gates: list[str] | list[tuple[str, int]]) -> Tensor:
    """The square of the mean derivative over a batch, mean over the batches. Shape: gate."""
    rows = scene.gate_columns(list(gates))
    means = [part.mean(0) for part in rows.split(batch_size_of(scene.data))]
    return torch.stack(means).square().mean(0)


def _written(structure: Structure, group: ChannelGroup) -> float:
    """How many numbers a channel of the group is in the outputs of the layers that make it."""
    made = {(m.parameter, m.axis): len(m.indices[0]) for m in group.members if m.role == "out"}
    own = ((cost, key) for cost in structure.costs for key in cost.along if cost.module == holder(key[0]))
    return sum(cost.positions * made.get(key, 0) for cost, key in own)
