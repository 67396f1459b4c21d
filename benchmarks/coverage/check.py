"""One network of the coverage benchmark: trace it, remove much of it in four ways, and compare on its own account.

What amsc hands out is judged by a comparison written here: the positions a plan removes are set to zero in a copy, and
the cut network must give the same numbers on inputs that amsc has not seen.
"""

import copy
import dataclasses
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from families import Inputs, build, inputs_of
from torch import Tensor, nn

from amsc.errors import AmscError, VerificationError
from amsc.structure import Structure, trace
from amsc.surgery import CutPlan, apply_plan, cuttable, masked, plan_cut, verify

Row = dict[str, Any]
Removal = tuple[dict[str, list[int]], list[str]]
TOLERANCE = 1e-5
SHARE = 0.4
# From best to worst; a row has the worst of its four removals.
OUTCOMES = ("ok", "rounding", "false alarm", "refused", "error", "caught", "SILENTLY WRONG")


def check(name: str, report: Callable[[Row], None], *, attention: str | None = None, seed: int = 0) -> Row:
    """The row of the network `name`; `report` gets what is known so far before every stage, in case one never ends."""
    row: Row = {"family": name, "attention": attention or "default", "status": "timeout", "stage": "build", "why": ""}
    report(row)
    try:
        model, inputs = build(name, attention=attention)
    except Exception as error:  # any library may raise anything
        return row | {"status": "not built", "why": words(error)}
    row |= {"parameters": sum(parameter.numel() for parameter in model.parameters()), "stage": "trace"}
    report(row)
    try:
        structure, row["trace_seconds"] = timed(lambda: trace(model, inputs))
        row["found_groups"], row["found_blocks"] = len(structure.channels), len(structure.blocks)
        row["stage"] = "cuttable"
        report(row)
        structure, row["cuttable_seconds"] = timed(lambda: cuttable(model, structure, inputs))
    except Exception as error:
        return row | {"status": f"error in {row['stage']}", "why": words(error)}
    row |= describe(model, structure) | {"tries": {}}
    report(row)
    if not row["exact"] and not row["blocks"]:
        return row | {"status": "nothing removable", "why": most_pinned(structure)}
    for kind, (channels, blocks) in removals(structure, random.Random(seed)).items():
        if channels or blocks:
            row["stage"] = kind
            row["tries"][kind] = attempt(name, model, structure, inputs, channels, blocks)
            report(row)
    return row | verdict(row)


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    value = function()
    return value, round(time.perf_counter() - start, 2)


def words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def describe(model: nn.Module, structure: Structure) -> Row:
    exact = [group for group in structure.channels if group.exact]
    inexact = [group.reason for group in structure.channels if not group.exact]
    return {
        "exact": sum(group.size > 1 for group in exact),
        "inexact": len(inexact),
        "inexact_why": sorted(set(inexact))[:5],
        "blocks": len(structure.blocks),
        "pinned_share": round(pinned_share(model, structure), 4),
    }


def pinned_share(model: nn.Module, structure: Structure) -> float:
    """Share of the parameters' elements that lie on no removable axis of an exact group and in no block."""
    in_blocks = {name for block in structure.blocks for name in block.parameters}
    free = {
        name: np.full(tuple(parameter.shape), name in in_blocks, dtype=bool)
        for name, parameter in model.named_parameters()
    }
    for group in structure.channels:
        for member in group.members if group.exact and group.size > 1 else ():
            if member.parameter in free:
                positions = [position for owned in member.indices for position in owned]
                np.moveaxis(free[member.parameter], member.axis, 0)[positions] = True
    total = sum(mask.size for mask in free.values())
    return 1 - sum(int(mask.sum()) for mask in free.values()) / max(total, 1)


def most_pinned(structure: Structure) -> str:
    """The reason that holds most positions, of pins and of groups that are not exact."""
    counts: dict[str, int] = {}
    for pin in structure.pins:
        counts[pin.reason] = counts.get(pin.reason, 0) + pin.count
    for group in structure.channels:
        if not group.exact:
            counts[group.reason] = counts.get(group.reason, 0) + group.size
    return max(counts, key=counts.__getitem__) if counts else "no parameter has a channel axis"


def removals(structure: Structure, chooser: random.Random) -> dict[str, Removal]:
    """What to remove, by kind: channels, blocks, both, and as much as possible."""
    groups = [group for group in structure.channels if group.exact and group.size > 1]
    blocks = [block.name for block in structure.blocks]
    with_channels = [block.name for block in structure.blocks if block.kind != "plain"]  # those go with the same ones

    def some_channels() -> dict[str, list[int]]:
        wanted = {group.name: min(group.size - 1, max(1, round(SHARE * group.size))) for group in groups}
        return {group.name: sorted(chooser.sample(range(group.size), wanted[group.name])) for group in groups}

    def some_blocks(blocks: list[str]) -> list[str]:
        return chooser.sample(blocks, chooser.randint(1, len(blocks))) if blocks else []

    largest = {group.name: sorted(chooser.sample(range(group.size), group.size - 1)) for group in groups}
    return {
        "channels": (some_channels(), []),
        "blocks": ({}, some_blocks(blocks)),
        "mixed": (some_channels(), some_blocks(with_channels)) if groups and with_channels else ({}, []),
        "largest": (largest, with_channels),
    }


def attempt(
    name: str, model: nn.Module, structure: Structure, inputs: Inputs, channels: Mapping[str, Any], blocks: list[str]
) -> Row:
    """One removal: its outcome (one of OUTCOMES), the share removed, the errors as amsc and as this file finds them.

    `effect` is how far the masked network is from the whole one: a removal without effect proves nothing."""
    try:
        plan = plan_cut(structure, channels=channels, blocks=blocks)
        small = apply_plan(model, plan)
    except AmscError as error:
        return {"outcome": "refused", "why": words(error)}
    except Exception as error:
        return {"outcome": "error", "why": words(error)}
    left = sum(parameter.numel() for parameter in small.parameters())
    result: Row = {"share": round(1 - left / sum(parameter.numel() for parameter in model.parameters()), 4)}
    if left != plan.parameters:
        result["miscounted"] = f"predicted {plan.parameters} parameters, {left} are left"
    try:
        result["verified"] = verify(model, small, plan, inputs)
    except VerificationError as error:
        result |= own_comparison(name, model, small, plan, after_alarm=True)
        outcome = "false alarm" if is_rounding(result) else "caught"
        return result | {"outcome": outcome, "why": words(error)}
    except Exception as error:
        return result | {"outcome": "error", "why": words(error)}
    result |= own_comparison(name, model, small, plan)
    if result["error"] <= TOLERANCE:
        return result | {"outcome": "ok"}
    why = f"differs by {result['error']:.2g}, in float64 by {result['error_in_float64']}"
    return result | {"outcome": "rounding" if is_rounding(result) else "SILENTLY WRONG", "why": why}


def is_rounding(result: Row) -> bool:
    """The difference nearly vanishes in float64 (not wholly: some networks compute in float32 inside)."""
    doubled = result["error_in_float64"]
    return doubled is not None and doubled < TOLERANCE / 10 and doubled < max(result["error"], TOLERANCE) / 20


def own_comparison(name: str, model: nn.Module, small: nn.Module, plan: CutPlan, *, after_alarm: bool = False) -> Row:
    """Largest relative difference of the outputs on new inputs, and again in float64 if it is above the tolerance.

    After an alarm of the verification: on the example inputs, and in float64 in any case."""
    zeroed = zeroed_copy(model, plan)
    inputs = inputs_of(name, seed=0 if after_alarm else 12345)
    try:
        expected, actual, whole = (outputs(network, inputs) for network in (zeroed, small, model))
    except Exception as error:
        return {"error": float("inf"), "error_in_float64": None, "effect": None, "own_failure": words(error)}
    row: Row = {"error": difference(expected, actual), "effect": difference(whole, expected), "error_in_float64": None}
    if row["error"] > TOLERANCE or after_alarm:
        try:
            doubled = in_float64(inputs)
            networks = (copy.deepcopy(network).double() for network in (zeroed, small))
            row["error_in_float64"] = difference(*(outputs(network, doubled) for network in networks))
        except Exception as error:
            row["own_failure"] = f"in float64: {words(error)}"
    return row


@torch.no_grad()
def zeroed_copy(model: nn.Module, plan: CutPlan) -> nn.Module:
    """The whole network with everything the plan removes set to zero: blocks as amsc does it, channels done here."""
    only_blocks = dataclasses.replace(plan, channels={}, cuts=())
    zeroed = masked(model, only_blocks) if plan.blocks else copy.deepcopy(model)
    tensors: dict[str, Tensor] = {**dict(zeroed.named_parameters()), **dict(zeroed.named_buffers())}
    for cut in plan.cuts:
        if cut.zeroed and cut.parameter in tensors:  # a bias that the plan makes first is zero anyway
            tensors[cut.parameter].movedim(cut.axis, 0)[list(cut.removed)] = 0
    return zeroed.eval()


@torch.no_grad()
def outputs(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    torch.manual_seed(7)
    output = model.eval()(**inputs) if isinstance(inputs, dict) else model.eval()(*inputs)
    return [tensor for tensor in leaves(output) if tensor.is_floating_point() and tensor.numel()]


def leaves(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        return [leaf for value in output.values() for leaf in leaves(value)]
    if isinstance(output, tuple | list):
        return [leaf for value in output for leaf in leaves(value)]
    if dataclasses.is_dataclass(output):
        return [leaf for field in dataclasses.fields(output) for leaf in leaves(getattr(output, field.name))]
    return []


def difference(expected: list[Tensor], actual: list[Tensor]) -> float:
    """Largest of max|a - b| / max|a| over the outputs; infinite where shapes, count or finiteness differ."""
    if [tensor.shape for tensor in expected] != [tensor.shape for tensor in actual] or not expected:
        return float("inf")
    worst = 0.0
    for a, b in zip(expected, actual, strict=True):
        finite = torch.isfinite(a)
        if not torch.equal(finite, torch.isfinite(b)):
            return float("inf")
        a, b = (torch.where(finite, tensor, 0).double() for tensor in (a, b))
        worst = max(worst, float((a - b).abs().max()) / (float(a.abs().max()) or 1.0))
    return worst


def in_float64(inputs: Any) -> Any:
    if isinstance(inputs, Tensor):
        return inputs.double() if inputs.is_floating_point() else inputs
    if isinstance(inputs, dict):
        return {key: in_float64(value) for key, value in inputs.items()}
    return tuple(in_float64(value) for value in inputs)


def verdict(row: Row) -> Row:
    """Status, largest share and largest error of a row whose removals were tried."""
    tries: dict[str, Row] = row["tries"]
    worst = max(tries.values(), key=lambda result: OUTCOMES.index(result["outcome"]))
    kinds = [kind for kind, result in tries.items() if result is worst]
    passed = [result for result in tries.values() if result["outcome"] in ("ok", "rounding")]
    return {
        "status": worst["outcome"],
        "why": f"{kinds[0]}: {worst['why']}" if worst.get("why") else "",
        "removed_share": max((result["share"] for result in passed), default=0.0),
        "max_error": max((max(r["error"], r["verified"]) for r in passed), default=None),
        "without_effect": [kind for kind, result in tries.items() if result.get("effect") == 0],
        "stage": "done",
    }
