"""What is cut at the end of a piece: all that is zero, and at the end of the path exactly what the target needs."""

from collections.abc import Iterable, Sequence
from itertools import compress
from typing import TypeVar

import torch
from torch import Tensor

from amsc.errors import TargetError
from amsc.penalty import Penalty
from amsc.structure.values import Structure
from amsc.training.removal import Leaf, Removal, channel_map, choose_channels, leaves_above, sparing_last

__all__ = ["cut_to_target", "cut_zeros", "lowest_macs"]

Item = TypeVar("Item", str, Leaf)


def cut_zeros(structure: Structure, penalty: Penalty, blocks: Tensor, channels: Tensor, floor_macs: int) -> Removal:
    """Blocks and channels that are zero (masks of shape block and channel), but not below `floor_macs`.

    Every group keeps a channel, which may be a zero one."""
    gone = _blocks_above(structure, compress(penalty.blocks, blocks.tolist()), floor_macs)
    left = structure.after({}, gone)
    zeros = list(sparing_last(left, compress(penalty.channels, channels.tolist())))
    if left.macs(channel_map(zeros)) < floor_macs:
        zeros = leaves_above(left, zeros, floor_macs)
    return Removal(gone, channel_map(zeros))


def cut_to_target(
    structure: Structure, penalty: Penalty, blocks: Tensor, channels: Tensor, target_macs: int
) -> Removal:
    """What brings the network to `target_macs` or just below: zeros first, then what the penalty would empty next.

    **Channels beyond the zero ones change the function**; they are few where the path was long enough. Where the
    channels alone cannot reach the target, the cheapest blocks go as well.

    Raises:
        TargetError: nothing reaches it.
    """
    leaf_times, block_times = penalty.emptying_times()
    gone = list(_blocks_above(structure, compress(penalty.blocks, blocks.tolist()), target_macs))
    spare = [name for name in _cheapest(penalty.blocks, _prices(block_times, blocks)) if name not in gone]
    while lowest_macs(structure.after({}, gone), penalty.channels) > target_macs:
        if not spare:
            lowest = lowest_macs(structure.after({}, gone), penalty.channels)
            raise TargetError(f"the target of {target_macs} MACs cannot be reached; the lowest is {lowest}")
        gone.append(spare.pop(0))
    left = structure.after({}, gone)
    ranking = _cheapest(penalty.channels, _prices(leaf_times, channels))
    return Removal(tuple(gone), channel_map(choose_channels(left, ranking, target_macs)))


def lowest_macs(structure: Structure, leaves: Iterable[Leaf]) -> int:
    """MACs with one channel left in each group of the `leaves`, and all blocks of `structure` kept."""
    return structure.macs(channel_map(sparing_last(structure, leaves)))


def _blocks_above(structure: Structure, names: Iterable[str], floor_macs: int) -> tuple[str, ...]:
    """Those blocks, in order, that can go without falling below the floor."""
    gone: tuple[str, ...] = ()
    for name in names:
        if structure.macs({}, (*gone, name)) >= floor_macs:
            gone = (*gone, name)
    return gone


def _prices(times: Tensor, zero: Tensor) -> Tensor:
    """How soon the penalty would empty each group, below zero for those that settled there. Shape: group."""
    return torch.where(zero.to(times.device), -1.0, times)


def _cheapest(items: Sequence[Item], prices: Tensor) -> list[Item]:
    return [items[index] for index in torch.argsort(prices, stable=True).tolist()]
