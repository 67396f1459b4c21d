"""The gate path's choice: what costs the loss least for what it saves, as things are now."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from amsc.errors import TargetError
from amsc.penalty import Penalty
from amsc.structure.rounding import Rounding
from amsc.structure.values import Structure
from amsc.training.removal import ANY_NUMBER, Leaf, Removal, channel_map, choose_channels
from amsc.training.selection import lowest_cost

__all__ = ["cheapest_blocks", "cheapest_channels"]

Item = TypeVar("Item", str, Leaf)


def cheapest_blocks(structure: Structure, penalty: Penalty, sensitivities: Tensor, goal_cost: int) -> Removal:
    """The blocks whose gates move the loss least for what they save, until the cost is as near to `goal_cost` as
    whole blocks come from above.

    Args:
        sensitivities: mean squares of the blocks' `gate_gradients`. Shape: block.
    """
    gone: tuple[str, ...] = ()
    for name in _ranked(penalty.blocks, sensitivities, penalty.block_costs):
        if structure.cost({}, (*gone, name)) >= goal_cost:
            gone = (*gone, name)
    return Removal(gone, {})


def cheapest_channels(
    structure: Structure,
    penalty: Penalty,
    sensitivities: tuple[Tensor, Tensor],
    goal_cost: int,
    rounding: Rounding = ANY_NUMBER,
) -> Removal:
    """The channels whose gates move the loss least for what they save, down to `goal_cost` or just below; where
    channels are not enough, the cheapest blocks as well.

    Args:
        sensitivities: mean squares of the `gate_gradients`. Shapes: channel, block.

    Raises:
        TargetError: nothing reaches the goal.
    """
    leaves, blocks = sensitivities
    spare, gone = _ranked(penalty.blocks, blocks, penalty.block_costs), list[str]()
    while (lowest := lowest_cost(structure.after({}, gone), penalty.channels, rounding)) > goal_cost:
        if not spare:
            raise TargetError(f"a cost of {goal_cost} cannot be reached; the lowest is {lowest}")
        gone.append(spare.pop(0))
    left = structure.after({}, gone)
    if left.cost() <= goal_cost:
        return Removal(tuple(gone))
    ranking = _ranked(penalty.channels, leaves, penalty.leaf_costs)
    return Removal(tuple(gone), channel_map(choose_channels(left, ranking, goal_cost, rounding=rounding)))


def _ranked(items: Sequence[Item], losses: Tensor, savings: Tensor) -> list[Item]:
    prices = losses.double() / savings.clamp(min=1).to(losses)
    return [items[index] for index in torch.argsort(prices, stable=True).tolist()]
