"""What the proximal map adds to a training step: plain SGD beside ProximalStep, in one run.

    python benchmarks/speed/bench_step_overhead.py [--cases resnet56 resnet50] [--rounds 15] [--threads 2]

Both sides train copies of the same network on the same batch, by turns, in random order within each round. The overhead
is the median over rounds of the ratio of the two times in that round, its spread the quartiles: what slows a
round down slows both. Result: benchmarks/results/step_overhead.json.
"""

import argparse
import copy
import json
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from amsc import Penalty, ProximalStep, trace
from amsc.measurement import machine_stamp
from amsc.models import open_model


@dataclass(frozen=True)
class Case:
    model: str
    batch: int
    pixels: int
    num_classes: int


CASES = {
    "resnet20": Case("resnet20", 128, 32, 10),
    "resnet56": Case("resnet56", 128, 32, 10),
    "resnet50": Case("resnet50", 8, 224, 1000),
}
LIMIT = 1.03
SGD_OPTIONS: dict[str, Any] = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-4}


def training_step(model: nn.Module, optimizer: Optimizer, inputs: Tensor, labels: Tensor) -> Callable[[], float]:
    """A function that makes one step and returns its seconds."""

    def step() -> float:
        start = time.perf_counter()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
        if inputs.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    return step


def sides(case: Case, device: str) -> tuple[dict[str, Callable[[], float]], Penalty]:
    """The two ways to make a step. Strengths are so small that nothing vanishes and the networks stay the same size."""
    torch.manual_seed(0)
    plain = open_model(case.model, num_classes=case.num_classes).to(device).train()
    proximal = copy.deepcopy(plain)
    inputs = torch.randn(case.batch, 3, case.pixels, case.pixels, device=device)
    labels = torch.randint(case.num_classes, (case.batch,), device=device)
    penalty = Penalty(trace(proximal, inputs[:1]), proximal)
    wrapped = ProximalStep(SGD(proximal.parameters(), **SGD_OPTIONS), penalty, depth_strength=1e-6, width_strength=1e-6)
    steps = {
        "plain": training_step(plain, SGD(plain.parameters(), **SGD_OPTIONS), inputs, labels),
        "proximal": training_step(proximal, wrapped, inputs, labels),
    }
    return steps, penalty


def map_seconds(penalty: Penalty, repeats: int = 50) -> float:
    """Median time of the proximal map alone."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        penalty.prox_(1e-6, 1e-6, 1e-6)
        if penalty.parameters()[0].is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def compare(case: Case, rounds: int, warmup: int, device: str) -> dict[str, Any]:
    steps, penalty = sides(case, device)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(warmup + rounds):
        for name in random.sample(list(steps), len(steps)):
            times[name].append(steps[name]())
    kept = {name: measured[warmup:] for name, measured in times.items()}
    ratios = [b / a for a, b in zip(kept["plain"], kept["proximal"], strict=True)]
    quartiles = statistics.quantiles(ratios, n=4) if rounds > 1 else [ratios[0]] * 3
    return {
        "batch": case.batch,
        "pixels": case.pixels,
        "penalised_parameters": len(penalty.parameters()),
        "channels": len(penalty.channels),
        "blocks": len(penalty.blocks),
        "rounds": rounds,
        "plain_seconds": statistics.median(kept["plain"]),
        "proximal_seconds": statistics.median(kept["proximal"]),
        "map_seconds": map_seconds(penalty),
        "ratio": statistics.median(ratios),
        "ratio_quartiles": [quartiles[0], quartiles[2]],
        "limit": LIMIT,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=sorted(CASES), default=["resnet56", "resnet50"])
    parser.add_argument("--rounds", type=int, default=15, help="timed pairs of steps per case")
    parser.add_argument("--warmup", type=int, default=2, help="pairs that are not timed")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "step_overhead.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    random.seed(0)
    result: dict[str, Any] = {"machine": machine_stamp(), "torch": torch.__version__, "cases": {}}
    for name in options.cases:
        row = compare(CASES[name], options.rounds, options.warmup, options.device)
        result["cases"][name] = row
        low, high = row["ratio_quartiles"]
        print(
            f"{name}: {row['plain_seconds']:.4f} s plain, {row['proximal_seconds']:.4f} s proximal, ratio "
            f"{row['ratio']:.4f} (quartiles {low:.4f} to {high:.4f}), map alone {1e3 * row['map_seconds']:.2f} ms"
        )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
