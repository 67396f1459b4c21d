"""Depth and width at once: the channels of most value whose network keeps to a cost, as a mixed-integer program."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import isqrt

from torch import Tensor

from amsc.criteria.program import Program
from amsc.errors import TargetError
from amsc.structure.costing import MET, predicted_cost
from amsc.structure.cutting import after_removal
from amsc.structure.names import is_inside
from amsc.structure.parts import LayerCost
from amsc.structure.rounding import Rounding
from amsc.structure.structure import Structure
from amsc.training.removal.removed import Removal
from amsc.training.removal.to_cost import lowest_cost

__all__ = ["KnapsackChoice"]

MOST_SIZES = 24
"""Numbers of channels that a group may be left with, at most; of more, some evenly."""
MOST_PAIRS = 20_000
"""Pairs of sizes that are multiplied, at most: with many groups in one product fewer sizes are looked at."""
MARGIN = 2e-6
"""By which share of a limit the program stays below it: what a solver of floats takes for equal."""

Term = tuple[str, ...]
"""Groups whose sizes are multiplied; one may stand there twice."""


@dataclass(frozen=True, eq=False)
class KnapsackChoice:
    """Which blocks and channels of a network go for any cost: those are kept whose prices are the most in sum.

    max over sizes k_g and blocks kept: sum_g of the k_g highest prices of g, subject to each cost <= its limit; a block
    that goes takes the prices of its channels with it, so that depth and width are chosen together (Shen et al. 2021,
    HALP, for channels; Sun et al. 2025, MDP, for both). Costs are those of amsc: exact products of sizes, or the model
    of the latency. Blocks without channels that have prices stay, since the program would take them for nothing.

    Where more than two groups are multiplied in one cost the others count with all their channels, so that no cost is
    taken for less than it is."""

    structure: Structure
    prices: Mapping[str, Tensor]
    rounding: Rounding
    blocks: tuple[str, ...]

    @cached_property
    def home(self) -> Mapping[str, str]:
        """The block with which a group goes, of those that go with one of the `blocks`."""
        names = {group.name for group in self.structure.channels}
        left = {block: after_removal(self.structure, {}, (block,)).channels for block in self.blocks}
        gone = {block: names - {group.name for group in groups} for block, groups in left.items()}
        return {name: block for block, groups in gone.items() for name in groups if name in self.prices}

    @property
    def lowest(self) -> int:
        """The lowest cost that can be reached."""
        left = after_removal(self.structure, {}, sorted(set(self.home.values())))
        leaves = [(name, channel) for name, values in self.prices.items() for channel in range(len(values))]
        return lowest_cost(left, leaves, self.rounding)

    def with_rounding(self, rounding: Rounding) -> "KnapsackChoice":
        """The same prices, with other numbers of channels that may be left."""
        return replace(self, rounding=rounding)

    def removal(self, target_cost: int) -> Removal:
        """What goes so that `target_cost` or just below are left.

        Raises:
            TargetError: nothing reaches it.
        """
        kept = self._program(target_cost).solved()
        if kept is None and self.lowest > target_cost:
            raise TargetError(f"a cost of {target_cost} cannot be reached; the lowest is {self.lowest}")
        if kept is None:  # the lowest lies within the margin
            kept = {name: self._sizes(name, 1)[0] for name in self.prices if name not in self.home}
        found = self._removal(kept)
        assert predicted_cost(self.structure, found.channels, found.blocks) <= target_cost, "no cost is taken for less"
        return found

    def _program(self, target_cost: int) -> Program:
        limits = [(list(self._terms(costs)), amount) for costs, amount in self._limits(target_cost)]
        pairs = {frozenset(groups) for terms, _ in limits for groups, _, _ in terms if len(set(groups)) > 1}
        most = min(MOST_SIZES, max(3, isqrt(MOST_PAIRS // max(1, len(pairs)))))
        sizes, values = {name: self._sizes(name, most) for name in self.prices}, {}
        for name, prices in self.prices.items():
            best = prices.sort(descending=True).values.cumsum(0).tolist()
            values[name] = [best[size - 1] for size in sizes[name]]
        program = Program(sizes, values, self.home)
        for terms, amount in limits:
            program.add_limit(terms, (1 - MARGIN) * amount)
        return program

    def _removal(self, kept: Mapping[str, int]) -> Removal:
        """What goes where so many channels of each group are kept; where a group has none, its block."""
        blocks = tuple(sorted({block for name, block in self.home.items() if name not in kept}))
        gone = {name: len(self.prices[name]) - size for name, size in kept.items()}
        orders = {name: self.prices[name].argsort(stable=True)[:count] for name, count in gone.items() if count}
        return Removal(blocks, {name: tuple(sorted(order.tolist())) for name, order in orders.items()})

    def _sizes(self, name: str, most: int) -> list[int]:
        group = self.structure.group(name)
        sizes = [*self.rounding.smaller_sizes(group), group.size]
        step = max(1, -(-len(sizes) // most))
        return sorted({sizes[0], *sizes[::-1][::step]})

    def _limits(self, target_cost: int) -> Iterator[tuple[tuple[LayerCost, ...], float]]:
        if not self.structure.limits:
            yield self.structure.costs, target_cost + 0.5  # they are whole numbers
        for limit in self.structure.limits:
            yield limit.costs, limit.amount * target_cost / MET

    def _terms(self, costs: Iterable[LayerCost]) -> Iterator[tuple[Term, str, float]]:
        """(groups, block that it goes with, factor) of the products of sizes that `costs` are the sum of."""
        for cost in costs:
            block = next((name for name in set(self.home.values()) if is_inside(cost.module, name)), "")
            terms: dict[Term, float] = {(): float(cost.positions)}
            for parameter, axis in cost.along:
                terms = _times(terms, self._axis(parameter, axis))
            yield from ((term, block, factor) for term, factor in terms.items() if factor)

    def _axis(self, parameter: str, axis: int) -> dict[Term, float]:
        """The length of an axis: what stays of it, and for each group how many positions a channel has there."""
        own = self._owners.get((parameter, axis), {})
        rest = self.structure.shapes[parameter][axis] - sum(
            len(self.prices[name]) * width for name, width in own.items()
        )
        return {(): float(rest), **{(name,): float(width) for name, width in own.items()}}

    @cached_property
    def _owners(self) -> dict[tuple[str, int], dict[str, int]]:
        found: dict[tuple[str, int], dict[str, int]] = {}
        for name in self.prices:
            for member in self.structure.group(name).members:
                found.setdefault((member.parameter, member.axis), {})[name] = len(member.indices[0])
        return found


def _times(terms: Mapping[Term, float], others: Mapping[Term, float]) -> dict[Term, float]:
    product: dict[Term, float] = {}
    for term, factor in terms.items():
        for other, own in others.items():
            key = tuple(sorted((*term, *other)))
            product[key] = product.get(key, 0.0) + factor * own
    return product
