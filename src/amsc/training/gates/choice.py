"""From the path of the gates to what goes for a budget: depth first, then width within what is left."""

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from amsc.errors import SettingsError, TargetError
from amsc.penalty import GateProblem, closing_order
from amsc.structure.costing import predicted_cost
from amsc.structure.cutting import after_removal
from amsc.structure.rounding import Rounding
from amsc.structure.structure import Structure
from amsc.training.gates.gradients import GateGradients
from amsc.training.removal.bunches import ANY_NUMBER, choose_channels
from amsc.training.removal.removed import Leaf, Removal, channel_map
from amsc.training.removal.to_cost import blocks_above, lowest_cost

__all__ = ["DIMENSIONS", "GateChoice", "Remainders", "WidthChoice"]

DIMENSIONS = ("both", "depth", "width")
Remainders = Mapping[str, Sequence[tuple[int, float]]]
"""Channels of groups in the order in which they are to go, with shares of their prices."""


class WidthChoice(Protocol):
    """Which channels of a network go for any cost."""

    @property
    def rounding(self) -> Rounding:
        """How many channels may be left in a group."""

    @property
    def lowest(self) -> int:
        """The lowest cost that can be reached."""

    def with_rounding(self, rounding: Rounding) -> "WidthChoice":
        """The same with other numbers of channels that may be left."""

    def removal(self, target_cost: int) -> Removal:
        """What goes so that `target_cost` or just below are left; TargetError if nothing reaches it."""


class GateChoice:
    """What to remove for any cost: blocks in the order in which their gates close when they alone may, then
    channels in the order in which theirs do when those blocks are gone.

    Args:
        structure: the dense network's.
        found: derivatives by the gates.
        sizes: q of each gate; less than 1 counts as 1. Shape: gate.
        power: weights are q to this power. 1/2 is AMSC's; with 1 the penalty is the expected size of what is left.
        dimensions: "both", "depth" (blocks only) or "width" (channels only).
        depth_share: with "both", the share of the saving that blocks may take, more only if channels do not suffice.
        rounding: how many channels may be left in a group.
        remainders: by the names of groups, their channels in the order in which they are to go, each with the share of
            its work that the others of its layer cannot take over (see `amsc.reconstruction.remainders`). What closing
            its gate costs counts by this share, at most 1, to tell how many channels go of each group; and not in what
            is predicted, which nothing makes up for. In groups that are not named gates alone tell.

    Raises:
        SettingsError: there is no such word for `dimensions`.
    """

    def __init__(
        self,
        structure: Structure,
        found: GateGradients,
        sizes: Tensor,
        *,
        power: float = 1.0,
        dimensions: str = "both",
        depth_share: float = 0.5,
        rounding: Rounding = ANY_NUMBER,
        remainders: Remainders | None = None,
    ) -> None:
        if dimensions not in DIMENSIONS:
            raise SettingsError(f"dimensions: expected one of {', '.join(DIMENSIONS)}, got {dimensions!r}")
        self.structure, self.found, self.rounding = structure, found, rounding
        self.dimensions, self.depth_share = dimensions, depth_share
        self._remainders = remainders or {}
        self._weights = sizes.clamp(min=1).double() ** power
        self._rankings: dict[tuple[str, ...], list[Leaf]] = {}

    @property
    def lowest(self) -> int:
        """The lowest cost that can be reached."""
        left = self.structure if self.dimensions == "width" else after_removal(self.structure, {}, self.found.blocks)
        return (
            predicted_cost(left)
            if self.dimensions == "depth"
            else lowest_cost(left, self.found.channels, self.rounding)
        )

    def with_rounding(self, rounding: Rounding) -> "GateChoice":
        """The same gates, with other numbers of channels that may be left."""
        other = copy.copy(self)
        other.rounding = rounding
        return other

    def removal(self, target_cost: int) -> Removal:
        """What goes so that `target_cost` or just below are left ("depth": as few blocks as that takes).

        Raises:
            TargetError: nothing reaches it.
        """
        if self.lowest > target_cost:
            raise TargetError(f"a cost of {target_cost} cannot be reached; the lowest is {self.lowest}")
        if self.dimensions == "depth":
            return Removal(self._all_blocks_until(target_cost), {})
        gone = self._blocks(target_cost)
        left = after_removal(self.structure, {}, gone)
        ranking = self._ranking(gone) if predicted_cost(left) > target_cost else []
        return Removal(gone, channel_map(choose_channels(left, ranking, target_cost, rounding=self.rounding)))

    def predicted_increase(self, removal: Removal) -> float:
        """How much the mean loss is predicted to grow, see `GateProblem.predicted_increase`."""
        return self._problem.predicted_increase(self._closed(removal))

    def standard_error(self, removal: Removal) -> float:
        """How uncertain that is, see `GateProblem.standard_error`."""
        return self._problem.standard_error(self._closed(removal))

    def _closed(self, removal: Removal) -> Tensor:
        number = {leaf: len(self.found.blocks) + i for i, leaf in enumerate(self.found.channels)}
        closed = [self.found.blocks.index(name) for name in removal.blocks]
        closed += [number[name, index] for name, indices in removal.channels.items() for index in indices]
        return torch.tensor(closed, dtype=torch.long)

    @cached_property
    def block_order(self) -> tuple[str, ...]:
        """The blocks in the order in which they close."""
        numbers = torch.arange(len(self.found.blocks))
        order, _ = closing_order(self._problem.without(numbers[:0], numbers))
        return tuple(self.found.blocks[i] for i in order.tolist())

    @cached_property
    def _problem(self) -> GateProblem:
        return GateProblem.of(self.found.gradients, self._weights)

    @cached_property
    def _recovered_problem(self) -> GateProblem:
        """With what is left of the price of each channel once the others have made up for it."""
        left = {(name, index): min(share, 1.0) for name, order in self._remainders.items() for index, share in order}
        shares = [1.0] * len(self.found.blocks) + [left.get(leaf, 1.0) for leaf in self.found.channels]
        return GateProblem.of(self.found.gradients * torch.tensor(shares, dtype=torch.float64).sqrt(), self._weights)

    def _all_blocks_until(self, target_cost: int) -> tuple[str, ...]:
        gone: tuple[str, ...] = ()
        for name in self.block_order:
            if predicted_cost(self.structure, {}, gone) <= target_cost:
                break
            gone = (*gone, name)
        return gone

    def _blocks(self, target_cost: int) -> tuple[str, ...]:
        """The blocks that go before channels do."""
        if self.dimensions == "width":
            return ()
        dense = predicted_cost(self.structure)
        floor = dense - int(self.depth_share * (dense - target_cost))
        gone = blocks_above(self.structure, self.block_order, floor)
        spare = [name for name in self.block_order if name not in gone]
        while lowest_cost(after_removal(self.structure, {}, gone), self.found.channels, self.rounding) > target_cost:
            gone = (*gone, spare.pop(0))
        return gone

    def _ranking(self, blocks: tuple[str, ...]) -> list[Leaf]:
        """The channels that are left without `blocks`, in the order in which they close."""
        if blocks not in self._rankings:
            groups = {group.name for group in after_removal(self.structure, {}, blocks).channels}
            kept = [i for i, (name, _) in enumerate(self.found.channels) if name in groups]
            closed = _numbers(self.found.blocks, blocks)
            columns = torch.tensor(kept, dtype=torch.long) + len(self.found.blocks)
            order, _ = closing_order(self._recovered_problem.without(closed, columns))
            ranking = (self.found.channels[kept[i]] for i in order.tolist())
            orders = {name: iter(order) for name, order in self._remainders.items()}
            self._rankings[blocks] = [
                (name, next(orders[name])[0]) if name in orders else (name, index) for name, index in ranking
            ]
        return self._rankings[blocks]


def _numbers(names: Sequence[str], chosen: Sequence[str]) -> Tensor:
    number: Mapping[str, int] = {name: i for i, name in enumerate(names)}
    return torch.tensor([number[name] for name in chosen], dtype=torch.long)
