"""What a structure would take in time on this machine: a model of a few numbers, fitted to networks that were timed."""

import random
from typing import Any

import numpy as np
from scipy.optimize import nnls
from torch import nn

from amsc.limits.clock import Clock
from amsc.measurement import time_in_turns
from amsc.records import Timing
from amsc.structure import LayerCost, Structure, time_features
from amsc.structure.costing import costs_after
from amsc.structure.cutting import after_removal
from amsc.surgery import apply_plan, plan_cut

__all__ = ["fit_timing", "latency_costs"]

_Removal = tuple[dict[str, list[int]], tuple[str, ...]]
NETWORKS = 16
"""Random cut networks that are timed beside the dense one."""


def fit_timing(
    model: nn.Module, structure: Structure, example_inputs: Any, *, seed: int, clock: Clock = time_in_turns
) -> Timing:
    """Latency as a sum of `time_features`, none of which takes less than no time: least squares of relative errors over
    the dense network and random cut ones, timed in turns.

    Args:
        structure: of the dense `model`.
        seed: draws the networks.
        clock: times them.
    """
    chooser = random.Random(seed)
    drawn = (_random_removal(structure, chooser) for _ in range(NETWORKS))
    removals: list[_Removal] = [({}, ()), *(removal for removal in drawn if any(removal))]
    plans = (plan_cut(structure, channels=channels, blocks=blocks) for channels, blocks in removals[1:])
    networks = [model, *(apply_plan(model, plan, example_inputs) for plan in plans)]
    seconds = np.array([median for median, _ in clock(networks, example_inputs)])
    features = time_features(structure)
    rows = np.array([[costs_after(structure, costs, *removal) for costs in features] for removal in removals])
    scale = rows[0].clip(min=1)
    found, _ = nnls(rows / scale / seconds[:, None], np.ones(len(seconds)))
    errors = np.abs(rows / scale @ found / seconds - 1)
    return Timing(float(seconds[0]), tuple((found / scale).tolist()), float(np.median(errors)), len(seconds))


def latency_costs(structure: Structure, timing: Timing) -> tuple[LayerCost, ...]:
    """The seconds of each part of the network, as the model has them."""
    return tuple(
        LayerCost(cost.module, cost.positions * seconds, cost.along)
        for costs, seconds in zip(time_features(structure), timing.coefficients, strict=True)
        for cost in costs
        if seconds
    )


def _random_removal(structure: Structure, chooser: random.Random) -> _Removal:
    """Some of the blocks, and of each group that is left a share of the channels around one that is drawn first."""
    rate, mean = chooser.random(), chooser.random()
    blocks = tuple(block.name for block in structure.outer_blocks if chooser.random() < rate / 2)
    left = [group for group in after_removal(structure, {}, blocks).channels if group.removable]
    counts = {g.name: min(g.size - 1, round(g.size * mean * chooser.uniform(0.6, 1.2))) for g in left}
    return {g.name: sorted(chooser.sample(range(g.size), counts[g.name])) for g in left if counts[g.name] > 0}, blocks
