"""How fast the card trains and answers, and what the proximal map adds."""

import random
import statistics
import warnings
from typing import Any

import torch
from benchmarks.gpu.cells import SHARES
from benchmarks.gpu.lab import TASK, Lab, fast_kernels, speed_of
from benchmarks.gpu.timing import latencies
from benchmarks.gpu.training import taught_by
from benchmarks.speed.bench_step_overhead import Case, compare
from torch.utils.benchmark import timer

from amsc import Settings, plan_cut, scan
from amsc.errors import AmscWarning, TargetError
from amsc.measurement import count_macs
from amsc.records import from_json, to_json
from amsc.surgery import CutPlan, apply_plan
from amsc.training import OptimizerChoice, TrainSettings, TrainState, finetune

__all__ = ["HOW", "epoch_seconds", "latency", "limit_name", "matrix_product", "overhead", "plan_ahead", "speed_name"]

HOW = {
    "eager": (False, False),
    "captured": (True, False),
    "eager, taught": (False, True),
    "captured, taught": (True, True),
}
"""How steps are made: captured as one CUDA graph or not, and whether they learn from the dense network too."""
MACS_OF_A_STEP = 3
"""Multiply-adds of a training step beside those of a forward pass: the gradients by weights and inputs cost as much."""


def speed_name(network: str, batch: int, how: str) -> str:
    """What a time is kept under."""
    return f"speed {network} batch {batch} {how}"


def limit_name(lab: Lab) -> str:
    """What the rate of a large product on this card is kept under."""
    return f"limit {lab.card}"


def matrix_product(lab: Lab) -> dict[str, Any]:
    """Multiply-adds per second of a large matrix product in bfloat16: the card's limit, as far as it can be reached."""
    size, rounds = (8192, 20) if lab.is_gpu else (256, 3)
    one, other = (torch.randn(size, size, device=lab.device, dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(3 + rounds):
        start = timer()
        one @ other
        times.append(timer() - start)
    seconds = statistics.median(times[3:])
    return {"size": size, "seconds": seconds, "macs_per_second": size**3 / seconds}


def epoch_seconds(lab: Lab, network: str, batch: int, how: str) -> dict[str, Any]:
    """Seconds of the second of two epochs of the training that cells are trained by, with all that belongs to it."""
    captured, is_taught = HOW[how]
    model, data = lab.opened(network), lab.with_batch(batch)
    options: dict[str, Any] = {"teach": taught_by(model)} if is_taught else {}
    settings = TrainSettings("speed", 2, OptimizerChoice(0.01), speed=speed_of(captured=captured))
    stamps: list[float] = []

    def stamp(state: TrainState) -> None:
        stamps.append(timer())

    if lab.is_gpu:
        torch.cuda.reset_peak_memory_stats(lab.device)
    with warnings.catch_warnings(record=True) as told, fast_kernels():
        warnings.simplefilter("always")
        loss = finetune(model, data, TASK, settings, save=stamp, **options)
    failures = [str(one.message) for one in told if issubclass(one.category, AmscWarning)]
    seconds, examples = stamps[1] - stamps[0], data.num_examples("train")
    macs = MACS_OF_A_STEP * count_macs(model, data.example_inputs()) * examples / seconds
    limit = lab.store.good(limit_name(lab))
    return {
        "network": network,
        "batch": batch,
        "how": how,
        "is_captured": captured and not failures,
        "warnings": failures,
        "seconds_per_epoch": seconds,
        "examples_per_second": examples / seconds,
        "macs_per_second": macs,
        "share_of_limit": macs / limit["macs_per_second"] if limit else None,
        "loss": loss,
        "peak_memory_bytes": torch.cuda.max_memory_allocated(lab.device) if lab.is_gpu else None,
    }


def overhead(lab: Lab, network: str) -> dict[str, Any]:
    """A step of SGD with the proximal map beside one without; float32, eager."""
    batch, rounds, warmup = (128, 40, 5) if lab.is_gpu else (8, 2, 1)
    random.seed(0)
    pixels = lab.data.example_inputs().shape[-1]
    found = compare(Case(network, batch, pixels, lab.data.num_classes or 10), rounds, warmup, str(lab.device))
    return {"network": network, **found}


def latency(lab: Lab, network: str, dimensions: str) -> dict[str, Any]:
    """Times of a forward pass of networks cut as a scan says, untrained, to shares of the multiply-adds."""
    plans = (lab.store.prepared(*_latency_key(network, dimensions)) or planned(lab, network, dimensions))["plans"]
    dense, inputs = lab.opened(network), lab.data.example_inputs()
    reached = [from_json(CutPlan, plan) for plan in plans.values() if plan]
    models = [dense, *(apply_plan(dense, plan, fold=False) for plan in reached)]
    macs = [count_macs(model, inputs) for model in models]
    return {
        "network": network,
        "dimensions": dimensions,
        "out_of_reach": [share for share, plan in plans.items() if not plan],
        "macs_share": [round(each / macs[0], 4) for each in macs],
        "seconds": latencies(lab, models),
    }


def plan_ahead(lab: Lab, network: str, dimensions: str) -> None:
    """Keep the plans of `latency` for a later call, if they are not kept yet."""
    key = _latency_key(network, dimensions)
    if lab.store.prepared(*key) is None:
        lab.store.prepare(*key, planned(lab, network, dimensions))


def planned(lab: Lab, network: str, dimensions: str) -> dict[str, dict[str, str]]:
    """The plan, as JSON, by the share of the multiply-adds; "" where a share cannot be reached."""
    dense, data = lab.opened(network), lab.data
    inputs, settings = data.example_inputs(), Settings(device=str(lab.device))
    found = scan(dense, inputs, data, settings=settings, dimensions=dimensions, shares=SHARES)
    plans = {}
    for share in sorted(SHARES, reverse=True):
        try:
            plans[f"{share:g}"] = to_json(plan_cut(found.structure, **found.removal(macs=share)))
        except TargetError:
            plans[f"{share:g}"] = ""
    return {"plans": plans}


def _latency_key(network: str, dimensions: str) -> tuple[str, str]:
    return f"latency {network} {dimensions}", "the given weights"
