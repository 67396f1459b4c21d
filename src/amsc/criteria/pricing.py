"""A criterion at work on a path: in which order blocks go, and which channels of any network on the way."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from torch import nn

from amsc.criteria.knapsack import KnapsackChoice
from amsc.criteria.scene import Scene
from amsc.criteria.spread import PricedChoice, by_their_mean, global_ranking, uniform_ranking
from amsc.criteria.table import CHANNELS, block_prices, channel_prices, found
from amsc.data import Data
from amsc.progress import Tell
from amsc.structure.cutting import after_removal
from amsc.structure.rounding import Rounding
from amsc.structure.structure import Structure
from amsc.surgery import stand_in
from amsc.tasks import Task
from amsc.training.gates.choice import WidthChoice
from amsc.training.gates.scan_gates import StandIn
from amsc.training.path.networks import Trail
from amsc.training.path.thinning import Cut, Thinning
from amsc.training.removal.bunches import ANY_NUMBER
from amsc.training.removal.removed import Removal, Shrunk

__all__ = ["PricedThinning", "Pricing"]


@dataclass(frozen=True)
class Pricing:
    """The criteria of a run (`block` "": no block goes), how a cut spreads over the layers ("auto": as is usual for the
    criterion), and what prices are taken of."""

    channel: str
    block: str
    spread: str
    data: Data
    task: Task
    seed: int = 0
    rounding: Rounding = ANY_NUMBER
    streams: bool = False

    def choice(self, model: nn.Module, structure: Structure) -> PricedChoice | KnapsackChoice:
        """Which channels of a network go for any cost, by the prices that they have in it; as a knapsack blocks too.

        Raises:
            SettingsError, DataError: see `channel_prices`.
        """
        criterion = found(CHANNELS, "criterion", self.channel)
        scene = self.scene(model, structure)
        prices = channel_prices(scene, self.channel)
        spread = criterion.spread if self.spread == "auto" else self.spread
        if spread == "uniform":
            return PricedChoice(structure, tuple(uniform_ranking(prices)), self.rounding)
        comparable = prices if criterion.is_comparable else by_their_mean(prices)
        if spread == "global":
            return PricedChoice(structure, tuple(global_ranking(comparable)), self.rounding)
        return KnapsackChoice(structure, comparable, self.rounding, tuple(block.name for block in scene.blocks))

    def block_order(self, model: nn.Module, structure: Structure) -> tuple[str, ...]:
        """The blocks of a network that may go, the cheapest first. Errors as of `block_prices`."""
        if not self.block:
            return ()
        prices = block_prices(self.scene(model, structure), self.block)
        return tuple(sorted(prices, key=prices.__getitem__))

    def narrowing(self, live: Shrunk, target_cost: int) -> Removal:
        """What goes of a network so that it costs `target_cost` or just less: channels, and blocks only where these are
        not enough.

        Raises:
            TargetError: nothing reaches it.
        """
        choice = self.choice(live.model, live.structure)
        if isinstance(choice, KnapsackChoice) or choice.lowest <= target_cost:
            return choice.removal(target_cost)
        gone = tuple[str, ...]()
        for name in self.block_order(live.model, live.structure):
            gone = (*gone, name)
            left = replace(choice, structure=after_removal(live.structure, {}, gone))
            if left.lowest <= target_cost:
                return Removal(gone, left.removal(target_cost).channels)
        return choice.removal(target_cost)  # which says what can be reached

    def scene(self, model: nn.Module, structure: Structure) -> Scene:
        """What the criteria look at."""
        return Scene(model, structure, self.data, self.task, self.seed, streams=self.streams)


class PricedThinning(Thinning):
    """The dense network, and the same without one, two, ... blocks, in the order of the prices that a criterion gives
    them in the dense network. Of each the channels go by the prices that they have in it; no other network is looked at
    where layers collapse."""

    rescues = False

    def __init__(self, trail: Trail, floor_cost: int, pricing: Pricing) -> None:
        super().__init__(trail, floor_cost)
        self._pricing = pricing

    @cached_property
    def _order(self) -> tuple[str, ...]:
        return self._pricing.block_order(self._trail.dense, self._trail.structure)

    def lowest(self, cut: Cut, *, least_share: float = 0.0) -> int:
        """The lowest cost that can be reached: as a knapsack without blocks too."""
        if self._pricing.spread == "knapsack":
            return self.width_choice(cut, stand_in).lowest
        return super().lowest(cut, least_share=least_share)

    def _looked_at(self, cut: Cut, _: StandIn) -> WidthChoice:
        return self._pricing.choice(cut.live.model, cut.live.structure)

    def _spare(self, structure: Structure, least_cost: int) -> list[str]:
        may_go = super()._spare(structure, least_cost)
        return [name for name in self._order if name in may_go]

    def _cheapest(self, cut: Cut, spare: Sequence[str], tell: Tell) -> tuple[Shrunk, str]:
        return self._trail.tried(cut.live, spare[0]), spare[0]
