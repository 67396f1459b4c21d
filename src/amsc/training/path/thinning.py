"""Networks with ever fewer blocks, the cheapest gone first, by what a network loses that is repaired without it."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from weakref import WeakKeyDictionary

from amsc.progress import Tell, silent
from amsc.structure.costing import predicted_cost
from amsc.structure.structure import Structure
from amsc.training.gates.choice import WidthChoice
from amsc.training.gates.scan_gates import StandIn, find_gates
from amsc.training.path.networks import Trail, copied_tensors
from amsc.training.path.state import Snapshot
from amsc.training.removal.removed import Removal, Shrunk, compose_removals
from amsc.training.removal.to_cost import lowest_cost
from amsc.training.steps.evaluation import mean_loss

__all__ = ["Cut", "Thinning"]

PRICED = 4
"""Batches of training examples on which a network is judged whose block is only priced."""


@dataclass(frozen=True, eq=False)
class Cut:
    """A network on the way, and what was removed from the dense one."""

    live: Shrunk
    removal: Removal

    @property
    def num_blocks(self) -> int:
        """How many blocks are gone."""
        return len(self.removal.blocks)

    def snapshot(self) -> Snapshot:
        """What is kept of it."""
        return Snapshot(self.removal, copied_tensors(self.live.model.state_dict()))


class Thinning:
    """The dense network, and the same without one, two, ... blocks, each made when it is asked for; blocks go while
    the cost stays at `floor_cost` or above, and below it only if they are asked to. The order is the same whatever was
    asked for before.

    The price of a block is what the training loss rises by when it is gone and the layers behind it are refitted, for
    each unit of cost that it saves. After a removal prices are asked anew, cheapest first, until the cheapest of all is
    a new one: they hardly fall when others go (the lazy greedy algorithm, Minoux 1978).

    Attributes:
        rescues: whether networks some of whose layers have collapsed get rivals (see `Making`).
    """

    rescues = True

    def __init__(self, trail: Trail, floor_cost: int) -> None:
        self._trail, self._floor_cost = trail, floor_cost
        self._cuts = [Cut(trail.shrink(trail.dense, trail.structure, Removal()), Removal())]
        self._prices: dict[str, float] = {}
        self._tried = 0
        self._choices: WeakKeyDictionary[Cut, WidthChoice] = WeakKeyDictionary()

    def without(self, number: int, least_cost: int, *, tell: Tell = silent) -> Cut:
        """The network without so many blocks, or as many as can go without the cost falling below the least; `tell`
        hears of each block that is priced."""
        while len(self._cuts) <= number and (thinner := self._thinner(self._cuts[-1], least_cost, tell)) is not None:
            self._cuts.append(thinner)
        enough = [cut for cut in self._cuts[: number + 1] if predicted_cost(cut.live.structure) >= least_cost]
        return enough[-1] if enough else self._cuts[0]

    def lowest(self, cut: Cut, *, least_share: float = 0.0) -> int:
        """The lowest cost that channels alone can reach, if this share of each group is left."""
        settings = self._trail.settings
        structure, gates = find_gates(cut.live.structure, cut.live.model, streams=settings.streams)
        return lowest_cost(structure, gates.channels, replace(settings.rounding, share=least_share))

    def width_choice(self, cut: Cut, stand_in: StandIn) -> WidthChoice:
        """What goes of the channels of a network, for any cost; each network is looked at once."""
        if cut not in self._choices:
            self._choices[cut] = self._looked_at(cut, stand_in)
        return self._choices[cut]

    def _looked_at(self, cut: Cut, stand_in: StandIn) -> WidthChoice:
        """What a scan of a network says of its channels."""
        return self._trail.scanned(cut.live, stand_in, dimensions="width")

    def _thinner(self, cut: Cut, least_cost: int, tell: Tell) -> Cut | None:
        """The network without one more block; None where none can go."""
        spare = self._spare(cut.live.structure, least_cost)
        if not spare:
            return None
        best, gone = self._cheapest(cut, spare, tell)
        best = replace(best, error=max(cut.live.error, best.error))
        return Cut(best, compose_removals(self._trail.structure, cut.removal, Removal((gone,))))

    def _spare(self, structure: Structure, least_cost: int) -> list[str]:
        """The blocks that may go next."""
        costs = {
            block.name: predicted_cost(structure, {}, (block.name,))
            for block in structure.outer_blocks
            if not block.kind.is_dirac
        }
        spare = [name for name, cost in costs.items() if cost >= self._floor_cost]
        return spare or [name for name, cost in costs.items() if cost >= least_cost]

    def _cheapest(self, cut: Cut, spare: Sequence[str], tell: Tell) -> tuple[Shrunk, str]:
        """The network without the cheapest of these blocks, and its name."""
        loss = cache(lambda: self._loss(cut.live))
        asked, best, gone = set[str](), None, ""
        while (name := min(spare, key=lambda name: self._prices.get(name, -math.inf))) not in asked:
            self._prices[name], tried = self._price(cut, name, loss)
            asked.add(name)
            self._tried += 1
            tell(tried=self._tried)
            if self._prices[name] <= min(self._prices[other] for other in asked):
                best, gone = tried, name  # of several that are as cheap the one that was tried last
        return best or self._trail.tried(cut.live, gone), gone

    def _price(self, cut: Cut, name: str, loss: Callable[[], float]) -> tuple[float, Shrunk | None]:
        """The price of a block of a network with this loss, and the network without it, unless the price is known."""
        key = json.dumps(["price", *cut.removal.blocks, name])
        if known := self._trail.memo.get(key):
            return known["price"], None
        tried, structure = self._trail.tried(cut.live, name), cut.live.structure
        saved = predicted_cost(structure) - predicted_cost(structure, {}, (name,))
        price = (self._loss(tried) - loss()) / max(1, saved)
        price = math.inf if math.isnan(price) else price
        self._trail.memo.keep(key, {"price": price})
        return price, tried

    def _loss(self, live: Shrunk) -> float:
        return mean_loss(live.model, self._trail.data, self._trail.task, batches=PRICED)
