"""Cutting down to the limits, also to those on what can only be measured: latency and memory."""

import math
from dataclasses import replace
from typing import Any

from torch import nn

from amsc.errors import TargetError
from amsc.limits.budget import Budget
from amsc.limits.target import Target
from amsc.measurement import peak_memory
from amsc.structure import Structure
from amsc.structure.costing import predicted_cost
from amsc.training import Snapshot, Trail

__all__ = ["MEASURED", "is_met", "keep_to_limits"]

MEASURED = frozenset({"latency", "memory"})
ATTEMPTS = 6
"""Networks that are measured; each costs a cut, and a look at what the loss depends on."""
NEAR = 0.95
"""A network that uses so much of its limit is not too small."""
MARGIN = 0.985
"""Where the next one aims, as a share of the limit."""


def is_met(dense: nn.Module, small: nn.Module, target: Target, example_inputs: Any) -> bool:
    """Whether the small network keeps to the measured limits of the target."""
    return all(used <= 1 for used in _used(dense, small, target, example_inputs).values())


def keep_to_limits(
    trail: Trail, budget: Budget, target: Target, example_inputs: Any, start: Snapshot
) -> tuple[Snapshot, float]:
    """`start`, cut down to the budget (**the function changes** then), and the relative error of verifying that.

    Where latency or memory is limited, the network is measured, and the model of the cost is held to a tighter limit
    if that is missed, to a looser one if far less is used; of the networks looked at the largest that keeps to the
    limits is taken.

    Raises:
        TargetError: none does.
    """
    missed, met = math.inf, 0.0  # scales of the limits that turned out so
    best: tuple[float, Snapshot] | None = None
    scale, error, used = 1.0, 0.0, dict[str, float]()
    for _ in range(ATTEMPTS):
        scaled, snapshot = replace(trail, structure=_scaled(trail.structure, scale)), start
        if predicted_cost(scaled.structure, start.removal.channels, start.removal.blocks) > budget.met:
            snapshot, one = scaled.cut_down(start, budget.met)
            error = max(error, one)
        if not MEASURED & target.limits.keys():
            return snapshot, error
        used = _used(trail.dense, scaled.rebuild(snapshot).model, target, example_inputs)
        worst = max(used.values())
        missed, met = (scale, met) if worst > 1 else (missed, scale)
        if worst <= 1 and (best is None or worst > best[0]):
            best = (worst, snapshot)
        if NEAR <= worst <= 1 or (worst < 1 and snapshot is start):
            break
        aim = scale * MARGIN / worst
        scale = aim if met < aim < missed else (met + missed) / 2
    if best is None:
        words = ", ".join(f"{cost}: {share:.3f} of the limit" for cost, share in used.items() if share > 1)
        raise TargetError(f"the network at the end of the path is measured to miss the target ({words}); allow more")
    return best[1], error


def _scaled(structure: Structure, scale: float) -> Structure:
    """The structure with this much of the limits on what is measured."""
    limits = (
        replace(limit, amount=limit.amount * scale) if limit.unit in MEASURED else limit for limit in structure.limits
    )
    return replace(structure, limits=tuple(limits))


def _used(dense: nn.Module, small: nn.Module, target: Target, example_inputs: Any) -> dict[str, float]:
    """The shares of the measured limits that the small network uses, as things are now."""
    used = {}
    for cost, amount in target.limits.items():
        if cost not in MEASURED:
            continue
        if cost == "latency":
            (before, _), (after, _) = target.clock([dense, small], example_inputs)
        else:
            before, after = (float(peak_memory(model, example_inputs)) for model in (dense, small))
        used[cost] = after / amount.of(before)
    return used
