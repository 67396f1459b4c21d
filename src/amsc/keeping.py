"""Limits on what can only be measured, latency and memory: does a network keep to them, and cutting until it does."""

from dataclasses import replace
from typing import Any

from torch import nn

from amsc.budget import Budget
from amsc.data import Data
from amsc.errors import TargetError
from amsc.measure import peak_memory, time_in_turns
from amsc.structure import MET
from amsc.target import Target
from amsc.tasks import Task
from amsc.training import Shrink, Snapshot, WalkSettings, cut_down, rebuild

__all__ = ["is_met", "keep_to_limits"]

MEASURED = ("latency", "memory")
ATTEMPTS = 8
MARGIN = 0.99
"""A limit that was missed is tightened by the share by which it was, and this."""


def is_met(dense: nn.Module, small: nn.Module, target: Target, example_inputs: Any) -> bool:
    """Whether the small network keeps to the measured limits of the target."""
    return all(used <= 1 for used in _used(dense, small, target, example_inputs).values())


def keep_to_limits(
    dense: nn.Module,
    budget: Budget,
    target: Target,
    example_inputs: Any,
    data: Data,
    task: Task,
    snapshot: Snapshot,
    *,
    shrink: Shrink,
    settings: WalkSettings,
) -> tuple[Snapshot, float]:
    """`snapshot`, cut further as long as it is measured to be above a limit, and the relative error of verifying that.

    Each time the model of the cost is held to a limit tighter by what was missed. **The function changes.**

    Raises:
        TargetError: the limit is still missed after some attempts.
    """
    structure, error = budget.structure, 0.0
    used: dict[str, float] = {}
    for _ in range(ATTEMPTS):
        small = rebuild(dense, structure, shrink, snapshot)
        used = _used(dense, small.model, target, example_inputs)
        if all(share <= 1 for share in used.values()):
            return snapshot, error
        tighter = {cost: MARGIN / share for cost, share in used.items() if share > 1}
        structure = replace(
            structure,
            limits=tuple(
                replace(limit, amount=limit.amount * tighter.get(limit.unit, 1.0)) for limit in structure.limits
            ),
        )
        snapshot, one = cut_down(
            dense, structure, data, task, snapshot, shrink=shrink, target_cost=MET, settings=settings
        )
        error = max(error, one)
    missed = ", ".join(f"{cost}: {share:.3f} of the limit" for cost, share in used.items() if share > 1)
    raise TargetError(f"the network at the end of the path is measured to miss the target ({missed}); allow more")


def _used(dense: nn.Module, small: nn.Module, target: Target, example_inputs: Any) -> dict[str, float]:
    """The shares of the measured limits that the small network uses, as things are now."""
    used = {}
    for cost, amount in target.limits.items():
        if cost not in MEASURED:
            continue
        if cost == "latency":
            before, after = time_in_turns([dense, small], example_inputs)
        else:
            before, after = (float(peak_memory(model, example_inputs)) for model in (dense, small))
        used[cost] = after / amount.of(before)
    return used
