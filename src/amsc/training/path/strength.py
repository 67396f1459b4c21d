"""How strong the penalty must be for the network to shrink on time: a plan of its cost, and control of it."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["CostPlan", "StrengthControl", "forecast_strength"]

FACTOR = 1.5
"""A strength changes by at most this factor from one look to the next: what rises too fast destroys the features."""
CORRECTION = 1.15
"""How much stronger than forecast, for every look that finds the network behind its plan (weaker: ahead of it)."""
CORRECTION_RANGE = (0.3, 30.0)


POWERS = {"depth": 1, "width": 3}
"""Depth is a search: its plan is a straight line, so that its points lie evenly. Width falls by a cubic."""


@dataclass(frozen=True)
class CostPlan:
    """The cost falls from `start` to `goal` over `steps` steps; its distance from the goal as `power` of the time left.

    With power 3 (Zhu & Gupta 2017, equation 1) it falls fast at first, when what goes is needed least, then ever
    slower: most of the steps train a network that is small already, which takes less time, and what was cut has the
    longest to be made good."""

    start: int
    goal: int
    steps: int
    power: int = 1

    def at(self, step: float) -> float:
        """Planned cost after `step` steps."""
        left = 1 - min(1.0, max(0.0, step / self.steps)) if self.steps else 0.0
        return self.goal + left**self.power * (self.start - self.goal)


@dataclass(frozen=True)
class StrengthControl:
    """The strength now, and by how much the forecast had to be corrected to stay on plan."""

    strength: float = 0.0
    correction: float = 1.0

    def afresh(self) -> "StrengthControl":
        """For a penalty whose weights are others: the same number is another strength under them, often by orders of
        magnitude where sensitivities were measured anew. Only the correction has the same meaning."""
        return StrengthControl(correction=self.correction)

    def next(self, forecast: float, *, cost: float, planned: float) -> "StrengthControl":
        """After a look at the network: what it costs (`cost`) without its zero groups, `planned` what it should have.

        Above the plan the strength is multiplied up, below it down. A forecast of zero (nothing left to do) switches
        the penalty off, and the next positive one starts afresh.
        """
        low, high = CORRECTION_RANGE
        correction = self.correction * (CORRECTION if cost > planned else 1 / CORRECTION)
        correction = min(high, max(low, correction))
        wanted = forecast * correction
        if self.strength > 0 and wanted > 0:
            wanted = min(FACTOR * self.strength, max(self.strength / FACTOR, wanted))
        return StrengthControl(wanted, correction)


def forecast_strength(times: Tensor, costs: Tensor, needed: float, travel: float) -> float:
    """The strength that would empty groups worth `needed` of the cost within `travel`, if the loss did not resist.

    `travel` is in what `times` are in. Between two groups the strength is interpolated, so that with little needed it
    starts at the smallest strength that could empty anything.

    Args:
        times: `emptying_times` of the groups. Shape: group.
        costs: what each group saves. Shape: group.
    """
    alive = torch.isfinite(times) & (times > 0)
    if needed <= 0 or travel <= 0 or not bool(alive.any()):
        return 0.0
    order = torch.argsort(times[alive], stable=True)
    waits, saved = times[alive][order].double(), costs[alive][order].double().cumsum(0)
    index = min(int(torch.searchsorted(saved, needed)), len(waits) - 1)
    before, saved_before = (float(waits[index - 1]), float(saved[index - 1])) if index else (0.0, 0.0)
    share = min(1.0, (needed - saved_before) / max(1.0, float(saved[index]) - saved_before))
    return (before + share * (float(waits[index]) - before)) / travel
