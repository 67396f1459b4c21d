"""From prices to channels that go: how a cut spreads over the layers."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from amsc.errors import TargetError
from amsc.structure.rounding import Rounding
from amsc.structure.structure import Structure
from amsc.training.removal.bunches import choose_channels
from amsc.training.removal.removed import Leaf, Removal, channel_map
from amsc.training.removal.to_cost import lowest_cost

__all__ = ["PricedChoice", "by_their_mean", "global_ranking", "uniform_ranking"]


def uniform_ranking(prices: Mapping[str, Tensor]) -> list[Leaf]:
    """All channels, so that of any first part about the same share is of each group, the cheapest of it.

    Channel number p of n in its group's order stands at (p + 1/2) / n."""
    placed = [
        ((place + 0.5) / len(values), name, channel)
        for name, values in prices.items()
        for place, channel in enumerate(values.argsort(stable=True).tolist())
    ]
    return [(name, channel) for _, name, channel in sorted(placed, key=lambda one: one[0])]


def by_their_mean(prices: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The prices divided by the mean of their group, so that groups can be compared (as Torch-Pruning does: Fang, Ma,
    Song, Mi and Wang 2023)."""
    return {name: values / values.mean().clamp(min=1e-300) for name, values in prices.items()}


def global_ranking(prices: Mapping[str, Tensor]) -> list[Leaf]:
    """All channels, the cheapest first."""
    priced = [
        (price, name, channel) for name, values in prices.items() for channel, price in enumerate(values.tolist())
    ]
    return [(name, channel) for _, name, channel in sorted(priced, key=lambda one: one[0])]


@dataclass(frozen=True, eq=False)
class PricedChoice:
    """Which channels of a network go for any cost: the first of a `ranking` (see `choose_channels`)."""

    structure: Structure
    ranking: tuple[Leaf, ...]
    rounding: Rounding

    @property
    def lowest(self) -> int:
        """The lowest cost that can be reached."""
        return lowest_cost(self.structure, self.ranking, self.rounding)

    def with_rounding(self, rounding: Rounding) -> "PricedChoice":
        """The same ranking, with other numbers of channels that may be left."""
        return replace(self, rounding=rounding)

    def removal(self, target_cost: int) -> Removal:
        """What goes so that `target_cost` or just below are left.

        Raises:
            TargetError: nothing reaches it.
        """
        if self.lowest > target_cost:
            raise TargetError(f"a cost of {target_cost} cannot be reached; the lowest is {self.lowest}")
        chosen = choose_channels(self.structure, self.ranking, target_cost, rounding=self.rounding)
        return Removal((), channel_map(chosen))
