"""One cell: so many replicates at one n, all arms."""

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from benchmarks.theory.arms import PRACTICAL, RATES, practical, theorem
from benchmarks.theory.estimators import Scene, live_units
from benchmarks.theory.fitting import Plan, train
from benchmarks.theory.networks import drawn_stack, structure_of
from benchmarks.theory.rules import merged_units
from benchmarks.theory.teachers import STUDENT, certified_teachers, sample_of

__all__ = ["Cell", "Lengths", "run"]


@dataclass(frozen=True)
class Lengths:
    """Steps of everything that is trained."""

    certify: int = 1500
    dense: int = 2000
    strength: int = 400
    settle: int = 400


@dataclass(frozen=True)
class Cell:
    """Replicates of one n; the seed gives the teachers (the same for every n), the examples and the first weights."""

    n: int
    seed: int
    replicates: int

    @property
    def name(self) -> str:
        """What it is called in the results."""
        return f"n {self.n} seed {self.seed}"


def run(cell: Cell, lengths: Lengths, arms: Collection[str]) -> dict[str, Any]:
    """The live units of these arms in every replicate, the same with parallel ones merged, in how many replicates what
    the teacher has was on the way (see `practical`), and the seconds that it took."""
    begun = time.perf_counter()
    teachers = certified_teachers(cell.replicates, cell.seed, Plan(lengths.certify, weight_decay=0.0))
    generator = torch.Generator().manual_seed(1_000_003 * (cell.seed + 1) + cell.n)
    sample, dense = sample_of(teachers, cell.n, generator), drawn_stack(STUDENT, cell.replicates, generator)
    split = cell.n * 4 // 5
    train(dense, sample.part(0, split), Plan(lengths.dense))
    scene = Scene(
        structure_of(STUDENT),
        sample.part(0, split),
        sample.part(split, cell.n),
        dense.state(),
        ("amsc",) * cell.replicates,
        Plan(lengths.strength),
        Plan(lengths.settle),
    )
    by_rate = theorem(scene, teachers, cell.n, {arm: rate for arm, rate in RATES.items() if arm in arms})
    by_rule, seen = practical(scene, {arm: choice for arm, choice in PRACTICAL.items() if arm in arms})
    ends = by_rate | by_rule
    return {
        "n": cell.n,
        "seed": cell.seed,
        "arms": {arm: live_units(stack).tolist() for arm, stack in ends.items()},
        "merged": {arm: merged_units(stack).tolist() for arm, stack in ends.items()},
        "seen": seen,
        "seconds": round(time.perf_counter() - begun, 1),
    }
