"""From a target to limits on a structure, refused before any training where they cannot be met."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from amsc.errors import TargetError
from amsc.limits.clock import Clock
from amsc.limits.latency_model import fit_timing, latency_costs
from amsc.limits.memory_model import memory_costs, weight_costs
from amsc.limits.target import COSTS, Amount, Target
from amsc.penalty import Coordinates, Penalty
from amsc.records import Timing
from amsc.settings import Settings
from amsc.structure import LayerCost, Limit, Structure, parameter_costs
from amsc.structure.costing import MET, costs_after, predicted_cost, predicted_macs
from amsc.structure.cutting import after_removal
from amsc.structure.words import going_words
from amsc.surgery import apply_plan, plan_cut
from amsc.training import Removal, fewest_channels, find_gates

__all__ = ["Budget", "find_budget"]

DROP_FLOOR = 0.1
"""How far down the path goes for a target that says only how much may be lost, as a share of the cost."""
ABOVE_LOWEST = 1.02
"""Where the model of the latency thinks a target out of reach, the path goes down to this times its lowest."""
NEVER_NEAR = 0.9
"""Moments at which the dense network takes less memory than this share of the limit are not looked at."""


@dataclass(frozen=True, eq=False)
class Budget:
    """What the target means for a network: the `structure` with its limits, the cost that `met` them, and the cost that
    the path goes down to. `timing` is the model of the latency, if there was need for one."""

    structure: Structure
    met: int
    floor: int
    timing: Timing | None


def find_budget(
    model: nn.Module,
    structure: Structure,
    example_inputs: Any,
    target: Target,
    settings: Settings,
    timing: Timing | None = None,
) -> Budget:
    """The budget of a run. Of a target without limits the path may go down as far as anything can go, or to a tenth.
    Latency is fitted first (unless `timing` is known), memory looked at.

    Raises:
        TargetError: nothing can be removed; removing all that may go does not meet the limits (the message says what
            can be met); or the dense network meets them already.
    """
    lowest = _lowest(structure, model, settings)
    if predicted_macs(structure, lowest.channels, lowest.blocks) == predicted_macs(structure):
        said = _limits_said(settings)
        why = f" with {said}" if said else ""
        streams = [group for group in structure.channels if group.kind == "stream" and group.removable]
        hint = '; its residual streams can lose channels with method="gates" and streams=True' if streams else ""
        raise TargetError(
            f"nothing in this network can be removed{why}: `amsc inspect` shows what is pinned, and why{hint}"
        )
    if "latency" in target.limits and timing is None:
        timing = fit_timing(model, structure, example_inputs, seed=settings.seed, clock=target.clock)
    known = _Known(model, structure, example_inputs, timing, target.clock)
    amounts = target.limits
    limits = [limit for cost, amount in amounts.items() for limit in _checked(known, cost, amount, lowest, settings)]
    is_search = target.drop is not None or target.is_free
    if amounts and not limits and not is_search:
        raise TargetError(f"the dense network costs no more than that: {_dense_words(known, amounts)}")
    if list(amounts) == ["macs"]:  # counted as they are
        met = int(amounts["macs"].of(predicted_macs(structure)))
    else:
        structure, met = replace(structure, limits=tuple(limits)), MET if limits else predicted_macs(structure)
    if not is_search:
        return Budget(structure, met, met, timing)
    floor = max(
        predicted_cost(structure, lowest.channels, lowest.blocks), round(DROP_FLOOR * predicted_cost(structure))
    )
    return Budget(structure, met, min(met, floor), timing)


@dataclass(frozen=True, eq=False)
class _Known:
    """The dense network, and how its costs are counted."""

    model: nn.Module
    structure: Structure
    example_inputs: Any
    timing: Timing | None
    clock: Clock
    _counted: dict[str, tuple[tuple[LayerCost, ...], ...]] = field(default_factory=dict)

    def sums(self, cost: str) -> tuple[tuple[LayerCost, ...], ...]:
        """What is summed up to a cost; of several sums (memory) the largest counts."""
        if cost not in self._counted:
            self._counted[cost] = self._count(cost)
        return self._counted[cost]

    def amount(self, cost: str, removal: Removal) -> float:
        """What is left of a cost, as it is counted."""
        return max(costs_after(self.structure, costs, removal.channels, removal.blocks) for costs in self.sums(cost))

    def _count(self, cost: str) -> tuple[tuple[LayerCost, ...], ...]:
        if cost == "memory":
            return memory_costs(self.model, self.structure, self.example_inputs)
        if cost == "latency":
            assert self.timing is not None, "fitted before"
            return (latency_costs(self.structure, self.timing),)
        if cost == "bytes":
            return (weight_costs(self.model, self.structure),)
        return (parameter_costs(self.structure) if cost == "params" else self.structure.costs,)


def _checked(known: _Known, cost: str, amount: Amount, lowest: Removal, settings: Settings) -> tuple[Limit, ...]:
    """The limits that say `amount`; none where the dense network keeps to it.

    Raises:
        TargetError: it cannot be met.
    """
    modelled = known.amount(cost, Removal()), known.amount(cost, lowest)
    dense, left = _timed(known, lowest) if cost == "latency" else modelled
    wanted = amount.of(dense) if cost == "latency" else math.floor(amount.of(dense))
    if wanted >= dense:
        return ()
    if left > wanted:
        may_go = known.structure if lowest.blocks else replace(known.structure, blocks=())
        raise TargetError(_refusal(cost, amount, left, dense, may_go, settings))
    if cost == "latency":  # the model has its own idea of the dense network, and of the smallest
        wanted = max(wanted * modelled[0] / dense, ABOVE_LOWEST * modelled[1])
    near = [costs for costs in known.sums(cost) if costs_after(known.structure, costs) > NEVER_NEAR * wanted]
    return tuple(Limit(cost, wanted, costs) for costs in near)


def _timed(known: _Known, lowest: Removal) -> tuple[float, float]:
    """Seconds of the dense network, and of the smallest, in turns."""
    plan = plan_cut(known.structure, channels=lowest.channels, blocks=lowest.blocks)
    small = apply_plan(known.model, plan, known.example_inputs)
    (dense, _), (left, _) = known.clock([known.model, small], known.example_inputs)
    return dense, left


def _refusal(cost: str, amount: Amount, left: float, dense: float, structure: Structure, settings: Settings) -> str:
    said = _limits_said(settings)
    most = going_words(structure, settings.rounding(structure).fewest, streams=settings.with_streams)
    gone = f"all gone that {said} let go ({most})" if said else f"all gone that can go ({most})"
    number = ".4g" if cost == "latency" else ".0f"
    share = math.ceil(1000 * left / dense) / 10
    return (
        f"{cost}={_words(cost, amount)} cannot be reached: with {gone}, {left:{number}} of {dense:{number}} "
        f"{COSTS[cost][2]} are left; the lowest reachable target is {cost}={share:.1f}% "
        "(`amsc inspect` shows what is pinned, and why)"
    )


def _words(cost: str, amount: Amount) -> str:
    return f"{amount.number:.4g}" + ("" if amount.is_share else " s" if cost == "latency" else "")


def _dense_words(known: _Known, amounts: Mapping[str, Amount]) -> str:
    return ", ".join(f"{known.amount(cost, Removal()):.6g} {COSTS[cost][2]}" for cost in amounts)


def _lowest(structure: Structure, model: nn.Module, settings: Settings) -> Removal:
    """All that may go."""
    found: Penalty | Coordinates = Penalty(structure, model)
    if settings.with_streams:
        structure, found = find_gates(structure, model, streams=True)
    is_width_alone = not settings.block_criterion and settings.criterion_spread != "knapsack"
    blocks = () if settings.method == "criterion" and is_width_alone else tuple(found.blocks)
    left = after_removal(structure, {}, blocks)
    rounding = settings.rounding(structure)
    return Removal(blocks, fewest_channels(left, found.channels, rounding))


def _limits_said(settings: Settings) -> str:
    """The settings that say what may not go; "" if none does."""
    chosen = {name: list(getattr(settings, name)) for name in ("keep", "only", "minimum")}
    said = [f"{name}={globs}" for name, globs in chosen.items() if globs]
    numbers = {"round_to": settings.round_to, "min_channels": settings.min_channels}
    binding = {name: number for name, number in numbers.items() if number not in ("auto", 1)}
    alike = ["uniform"] if settings.uniform else []
    return ", ".join([*said, *(f"{name}={number}" for name, number in binding.items()), *alike])
