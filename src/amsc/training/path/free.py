"""As small as it goes for nothing: which cost is looked at next, and which network is still as good as the best."""

import math
from collections.abc import Sequence

from amsc.records import JudgedShare
from amsc.structure.costing import predicted_cost, predicted_macs
from amsc.structure.structure import Structure
from amsc.tasks import Task
from amsc.training.path.depth_rule import is_as_good, one_standard_error_choice, paired_difference
from amsc.training.path.state import Candidate

__all__ = ["cost_of", "judged_shares", "next_cost", "smallest_as_good"]

STEP = 0.8
"""Each network on the way down has this share of the cost of the one before."""
CLOSE = 0.94
"""Between two costs of which one has at least this share of the other nothing is looked at."""


def smallest_as_good(structure: Structure, candidates: Sequence[Candidate], task: Task) -> Candidate:
    """The candidate of least cost that is not worse than the best by more than one paired standard error."""
    costs, values = [cost_of(structure, one) for one in candidates], [one.per_example for one in candidates]
    return candidates[one_standard_error_choice(costs, values, higher_is_better=task.higher_is_better)]


def next_cost(structure: Structure, candidates: Sequence[Candidate], task: Task, lowest: int) -> int | None:
    """The cost of the network to be judged next, which is a function of those judged so far (the dense one first).

    On the way down it is `STEP` times that of the smallest network that is as good as the best, but not below `lowest`;
    once a smaller one is worse, half way (geometrically) between the two. None when they are close, or `lowest` is as
    good.
    """
    smallest = cost_of(structure, smallest_as_good(structure, candidates, task))
    worse = [cost for one in candidates if (cost := cost_of(structure, one)) < smallest]
    if worse:
        return None if max(worse) >= CLOSE * smallest else round(math.sqrt(max(worse) * smallest))
    goal = max(lowest, round(STEP * smallest))
    return goal if goal < smallest else None


def judged_shares(structure: Structure, candidates: Sequence[Candidate], task: Task) -> tuple[JudgedShare, ...]:
    """The candidates as plain data, each beside the best of all; the largest first."""
    dense = predicted_macs(structure)
    signed = [one.per_example.double() * (1 if task.higher_is_better else -1) for one in candidates]
    best = max(signed, key=lambda values: float(values.mean()))
    found = []
    for one, values in zip(candidates, signed, strict=True):
        behind, error = paired_difference(best, values)
        macs = predicted_macs(structure, one.snapshot.removal.channels, one.snapshot.removal.blocks)
        score, is_kept = float(one.per_example.double().mean()), is_as_good(best, values)
        found.append(JudgedShare(macs / dense, macs, score, behind, error, len(values), is_kept))
    return tuple(sorted(found, key=lambda one: -one.macs))


def cost_of(structure: Structure, one: Candidate) -> int:
    """What the network of a candidate costs."""
    return predicted_cost(structure, one.snapshot.removal.channels, one.snapshot.removal.blocks)
