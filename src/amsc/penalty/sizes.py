"""What a penalised channel or block holds and what its removal saves: q in the weights."""

from math import prod

import torch
from torch import Tensor

from amsc.penalty.coordinates import Coordinates
from amsc.structure.costing import counted_costs, saved_by_block, saved_by_channel
from amsc.structure.parts import PRODUCERS
from amsc.structure.structure import ChannelGroup, LayerCost, Structure

__all__ = ["parameters_held", "saved_cost", "saved_macs"]


def parameters_held(structure: Structure, coordinates: Coordinates) -> tuple[Tensor, Tensor]:
    """Number of parameters of every penalised channel (what makes it, not what reads it) and of every block.

    Shapes: channel, block (integers)."""
    per_group = {name: _held_by_channels(structure, structure.group(name)) for name, _ in coordinates.channels}
    channels = [per_group[name][index] for name, index in coordinates.channels]
    named = (structure.block(name).parameters for name in coordinates.blocks)
    blocks = [sum(prod(structure.shapes[p]) for p in names if p in structure.shapes) for names in named]
    return torch.tensor(channels, dtype=torch.long), torch.tensor(blocks, dtype=torch.long)


def saved_cost(structure: Structure, coordinates: Coordinates) -> tuple[Tensor, Tensor]:
    """What removing one penalised channel, or one block, from the network as it is takes off its `predicted_cost`.

    Shapes: channel, block (integers)."""
    return _saved(structure, coordinates, counted_costs(structure))


def saved_macs(structure: Structure, coordinates: Coordinates) -> tuple[Tensor, Tensor]:
    """The same in multiply-adds. Shapes: channel, block (integers)."""
    return _saved(structure, coordinates, structure.costs)


def _saved(structure: Structure, coordinates: Coordinates, costs: tuple[LayerCost, ...]) -> tuple[Tensor, Tensor]:
    per_group = {name: round(saved_by_channel(structure, name, costs)) for name, _ in coordinates.channels}
    channels = [per_group[name] for name, _ in coordinates.channels]
    blocks = [round(saved_by_block(structure, name, costs)) for name in coordinates.blocks]
    return torch.tensor(channels, dtype=torch.long), torch.tensor(blocks, dtype=torch.long)


def _held_by_channels(structure: Structure, group: ChannelGroup) -> list[int]:
    held = [0] * group.size
    for member in group.members:
        if member.role in PRODUCERS:
            shape = structure.shapes[member.parameter]
            for channel, positions in enumerate(member.indices):
                held[channel] += len(positions) * prod(shape) // shape[member.axis]
    return held
