"""Depth at equal cost: how many blocks go is judged by whole networks at the target, each given back what it can be."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from amsc.errors import TargetError
from amsc.progress import Tell, silent
from amsc.records import DepthCandidate
from amsc.structure.costing import predicted_macs
from amsc.tasks import Task
from amsc.training.gates.scan_gates import StandIn
from amsc.training.path.candidates import AtTarget, Making
from amsc.training.path.depth_rule import paired_shortfall
from amsc.training.path.networks import Trail
from amsc.training.path.thinning import Cut, Thinning

__all__ = ["EqualCost", "depth_at_equal_cost"]

PATIENCE = 2
"""Numbers of blocks that may be worse in turn before the search for more of them ends."""
AS_GOOD = 0.5
"""Paired standard errors by which a network may be worse than the best and be as good."""


@dataclass(frozen=True, eq=False)
class EqualCost:
    """The candidates by the number of blocks that are gone, and the one that was chosen."""

    candidates: tuple[AtTarget, ...]
    chosen: AtTarget

    def rows(self) -> tuple[DepthCandidate, ...]:
        """The candidates as plain data."""
        return tuple(
            DepthCandidate(
                one.removed_blocks,
                predicted_macs(one.structure),
                one.judged.score,
                one.least_share,
            )
            for one in self.candidates
        )


def depth_at_equal_cost(
    trail: Trail,
    target_cost: int,
    stand_in: StandIn,
    *,
    thinning: Thinning | None = None,
    near: int | None = None,
    tell: Tell = silent,
) -> EqualCost:
    """Networks that cost `target_cost` or just less, with no block, one, two, ... less than the dense one and as many
    channels less as must be; and the best of them.

    Blocks go in the order of their prices (see `Thinning`), channels as a scan says.
    Numbers of blocks are tried in steps that double, until two are worse in turn, and then between the best and its
    neighbours. With a `depth_share` of 0 no block goes that need not. Of networks that are as good as the best, by half
    a paired standard error, the one with the fewest blocks is taken: a block saves more time than channels of the same
    cost.

    Args:
        target_cost: in the units of the structure's cost.
        stand_in: makes what takes the place of a block while gates are looked at.
        thinning: the order in which blocks go, shared by several searches; made for this one if None.
        near: a number of blocks that was best at a higher cost: the search begins there, and ends at the first that is
            worse.
        tell: hears of each block that is priced, and of each network that is judged.

    Raises:
        TargetError: nothing reaches the target.
    """
    search = _Search(trail, target_cost, stand_in, thinning or Thinning(trail, target_cost), near, tell)
    found = search.candidates()
    found += search.making.rivals(_chosen(found, trail.task))
    return EqualCost(tuple(found), _chosen(found, trail.task))


def _chosen(found: Sequence[AtTarget], task: Task) -> AtTarget:
    worths = [one.worth(task) for one in found]
    best = max(worths, key=lambda worth: float(worth.mean()))
    good = [number for number, worth in enumerate(worths) if paired_shortfall(best, worth) <= AS_GOOD]
    return found[max(good, key=lambda number: (found[number].num_blocks, float(worths[number].mean())))]


class _Search:
    """Networks with ever fewer blocks, and what they are worth at the target."""

    def __init__(
        self, trail: Trail, target_cost: int, stand_in: StandIn, thinning: Thinning, near: int | None, tell: Tell
    ) -> None:
        self._trail, self._target_cost, self._tell = trail, target_cost, tell
        self.making = Making(trail, target_cost, stand_in, thinning)
        self._thinning, self._near = thinning, near
        self._least = 0
        self._found: dict[int, AtTarget] = {}

    def candidates(self) -> list[AtTarget]:
        """Those that the search came to, by the number of blocks that are gone."""
        self._least = self._fewest()
        best = first = number = self._most(self._near or 0)
        worse, patience = 0, PATIENCE if self._near is None else 1
        while worse < patience and number not in self._found:
            self._try(number)
            worse = 0 if self._best() == number else worse + 1
            best, number = self._best(), self._most(first + max(1, 2 * (number - first)))
        while (between := self._between(best)) is not None:
            self._try(between)
            best = self._best()
        return [self._found[number] for number in sorted(self._found)]

    def _fewest(self) -> int:
        """How many blocks must go, since channels alone do not reach the target."""
        number = 0
        while self.making.lowest(thinned := self._without(number, 0)) > self._target_cost:
            number += 1
            if self._without(number, 0).num_blocks < number:
                raise TargetError(
                    f"a cost of {self._target_cost} cannot be reached; the lowest is {self.making.lowest(thinned)}"
                )
        return number

    def _best(self) -> int:
        return max(self._found, key=lambda number: float(self._found[number].worth(self._trail.task).mean()))

    def _between(self, best: int) -> int | None:
        """A number of blocks half way between the best and its neighbours, if these are not near."""
        numbers = sorted(self._found)
        place, near = numbers.index(best), 1 + best // 4
        gaps = [(low, high) for low, high in pairwise(numbers[max(0, place - 1) : place + 2]) if high - low > near]
        low, high = max(gaps, key=lambda gap: gap[1] - gap[0], default=(0, 0))
        return (low + high) // 2 if gaps else None

    def _most(self, number: int) -> int:
        """So many blocks, or as many as can go without falling below the target, but no fewer than must."""
        if not self._trail.settings.depth_share:
            return self._least
        return max(self._least, self._without(number, self._target_cost).num_blocks)

    def _without(self, number: int, least_cost: int) -> Cut:
        return self._thinning.without(number, least_cost, tell=self._tell)

    def _try(self, number: int) -> None:
        self._found[number] = found = self.making.candidate(self._without(number, 0))
        left = found.structure
        self._tell(
            judged=len(self._found),
            blocks=len(left.outer_blocks),
            macs=predicted_macs(left),
            score=found.judged.score,
        )
