"""What is cut at the end of a piece: all that is zero, and at the end of the path exactly what the target needs."""

from collections.abc import Iterable, Sequence
from itertools import chain, compress
from typing import TypeVar

import torch
from torch import Tensor

from amsc.errors import TargetError
from amsc.penalty import Penalty, emptying_times
from amsc.structure.costing import predicted_cost
from amsc.structure.cutting import after_removal
from amsc.structure.rounding import Rounding
from amsc.structure.structure import Structure
from amsc.training.removal.bunches import ANY_NUMBER, bunches, bunches_above, choose_channels, sparing_last
from amsc.training.removal.removed import Leaf, Removal, channel_map

__all__ = ["blocks_above", "blocks_needed", "cut_to_target", "cut_zeros", "fewest_channels", "lowest_cost"]

Item = TypeVar("Item", str, Leaf)


def cut_zeros(
    structure: Structure,
    penalty: Penalty,
    blocks: Tensor,
    channels: Tensor,
    floor_cost: int,
    rounding: Rounding = ANY_NUMBER,
) -> Removal:
    """Blocks and channels that are zero (masks of shape block and channel), but not below `floor_cost`.

    Every group keeps a channel, which may be a zero one; zero ones stay as well until `rounding` lets them go."""
    gone = blocks_above(structure, compress(penalty.blocks, blocks.tolist()), floor_cost)
    left = after_removal(structure, {}, gone)
    zeros = list(bunches(left, compress(penalty.channels, channels.tolist()), rounding))
    if predicted_cost(left, channel_map(chain.from_iterable(zeros))) < floor_cost:
        zeros = bunches_above(left, zeros, floor_cost)
    return Removal(gone, channel_map(chain.from_iterable(zeros)))


def cut_to_target(
    structure: Structure,
    penalty: Penalty,
    blocks: Tensor,
    channels: Tensor,
    target_cost: int,
    rounding: Rounding = ANY_NUMBER,
) -> Removal:
    """What brings the network to `target_cost` or just below: zeros first, then what the penalty would empty next.

    **Channels beyond the zero ones change the function**; they are few where the path was long enough. Where the
    channels alone cannot reach the target, the cheapest blocks go as well.

    Raises:
        TargetError: nothing reaches it.
    """
    zero = blocks_above(structure, compress(penalty.blocks, blocks.tolist()), target_cost)
    gone = blocks_needed(structure, penalty, penalty.channels, target_cost, rounding, zero=zero)
    left = after_removal(structure, {}, gone)
    ranking = _cheapest(penalty.channels, _prices(emptying_times(penalty)[0], channels))
    return Removal(gone, channel_map(choose_channels(left, ranking, target_cost, rounding=rounding)))


def blocks_needed(
    structure: Structure,
    penalty: Penalty,
    leaves: Sequence[Leaf],
    target_cost: int,
    rounding: Rounding = ANY_NUMBER,
    *,
    zero: Iterable[str] = (),
) -> tuple[str, ...]:
    """The blocks `zero`, and as many of the others as must go so that `target_cost` can be reached with `leaves`: those
    that the penalty would empty next.

    Raises:
        TargetError: nothing reaches it.
    """
    gone = list(zero)
    spare = [name for name in _cheapest(penalty.blocks, emptying_times(penalty)[1]) if name not in gone]
    while (lowest := lowest_cost(after_removal(structure, {}, gone), leaves, rounding)) > target_cost:
        if not spare:
            rounded = " with channels in the multiples and numbers asked for" if rounding.keeps_some else ""
            raise TargetError(f"a cost of {target_cost} cannot be reached{rounded}; the lowest is {lowest}")
        gone.append(spare.pop(0))
    return tuple(gone)


def lowest_cost(structure: Structure, leaves: Iterable[Leaf], rounding: Rounding = ANY_NUMBER) -> int:
    """The cost with as few `leaves` left as `rounding` allows, at least one in each group, and all blocks kept."""
    return predicted_cost(structure, fewest_channels(structure, leaves, rounding))


def fewest_channels(
    structure: Structure, leaves: Iterable[Leaf], rounding: Rounding = ANY_NUMBER
) -> dict[str, tuple[int, ...]]:
    """All `leaves` that may go: as few are left in each group as `rounding` allows, at least one."""
    return channel_map(sparing_last(structure, leaves, rounding))


def blocks_above(structure: Structure, names: Iterable[str], floor_cost: int) -> tuple[str, ...]:
    """Those blocks, in order, that can go without falling below the floor."""
    gone: tuple[str, ...] = ()
    for name in names:
        if predicted_cost(structure, {}, (*gone, name)) >= floor_cost:
            gone = (*gone, name)
    return gone


def _prices(times: Tensor, zero: Tensor) -> Tensor:
    """How soon the penalty would empty each group, below zero for those that settled there. Shape: group."""
    return torch.where(zero.to(times.device), -1.0, times)


def _cheapest(items: Sequence[Item], prices: Tensor) -> list[Item]:
    return [items[index] for index in torch.argsort(prices, stable=True).tolist()]
