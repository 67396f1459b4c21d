"""Accuracy after no, a quarter, one and two epochs: every way with and without reconstruction, and with distillation.

    python benchmarks/evidence/schedules.py --data FOLDER --weights FILE [--seeds 0 1 2] [--shares 0.6 0.45 0.3] \\
        [--ways ...] [--epochs 0 0.25 1 2] [--distillation 0.9] [--model resnet56 --results FILE]

One dense network, trained on all images for two epochs first and kept in --work, and `--limit` training images for all
that follows. Ways that cut at once do so once for each share and seed; what they leave is fine-tuned anew for each
number of epochs, by the same call for all. Ways that walk spend an eighth of the epochs on the path, by `compress`,
with the same learning rate for the rest. "repaired" ones are given back what their cuts cost, from `EXAMPLES` training
images without labels; the others have BatchNorm estimated anew. Widths are not rounded. Every network is timed in turns
with the dense one, in eager mode, on one thread. Validation and test images are two parts of the test file (`Halved`).
Every finished cell is written at once and skipped when the script is started again. "CIFAR-10 JPEG" is not the original
CIFAR-10: compare only within one file.
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from bench_scan import fisher, taylor
from cifar10_jpeg import TASK, Halved, adapted, score
from frontier import EXAMPLES, L1, add_shared_options, ranked, scanned, uniform
from rivals import random_removal
from torch import nn

from amsc import Settings, Target, compress, reconstruct
from amsc.data import Data, open_data
from amsc.measurement import count_macs, machine_stamp, time_in_turns
from amsc.surgery import plan_of
from amsc.training import Distillation, OptimizerChoice, Speed, TrainSettings, finetune, reestimate_batchnorm

RESULTS = Path(__file__).parents[1] / "results" / "schedules.json"
WALKED = 0.125
"""The share of the epochs that a path takes."""
SPEED = Speed("bfloat16", channels_last=True)
KEY = ("way", "repaired", "share", "seed", "epochs", "distillation")


def cut_by(**choices: Any) -> Callable[..., nn.Module]:
    """`compress` without a path and without training, always repaired."""

    def run(dense: nn.Module, data: Data, share: float, seed: int, options: argparse.Namespace) -> nn.Module:
        settings = Settings.of("instant", seed=seed, path_points=1, reconstruction=EXAMPLES, round_to=1, **choices)
        return compress(dense, data.example_inputs(), data, target=Target(macs=share), settings=settings).model

    return run


AT_ONCE: dict[str, Callable[..., nn.Module]] = {
    "scan, width only": scanned("width"),
    "scan": scanned("both"),
    "L1, uniform": L1,
    "Taylor": ranked(taylor),
    "Fisher per MAC": ranked(lambda it: fisher(it) / it.sizes["macs"]),
    "random, uniform": uniform(lambda structure, macs, dense, seed: random_removal(structure, macs, seed)),
}
"""Cuts that know nothing of reconstruction."""
SEARCHES: dict[str, Callable[..., nn.Module]] = {
    "equal cost": cut_by(),
    "equal cost, width only": cut_by(depth_share=0.0),
    "equal cost, Fisher prices": cut_by(prices="fisher"),
}
"""Cuts that judge whole networks after reconstruction."""
WALKS: dict[str, dict[str, Any]] = {
    "proximal": {"depth_rule": "one-standard-error"},
    "proximal, width only": {"depth_rule": "one-standard-error", "depth_share": 0.0},
    "gates": {"method": "gates", "depth_rule": "one-standard-error"},
    "equal cost, then proximal": {"depth_rule": "equal-cost"},
    "paper": {"depth_rule": "one-standard-error", "weights": "amsc", "currency": "params"},
}
WAYS = (*SEARCHES, *AT_ONCE, *WALKS)


def main() -> None:
    options = options_of()
    torch.set_num_threads(options.threads)
    found = json.loads(options.results.read_text()) if options.results.exists() else {"runs": []}
    kept = ("model", "limit", "learning_rate", "path_learning_rate", "path_points")
    found |= {"data": "CIFAR-10 JPEG", "examples": EXAMPLES, "machine": dict(machine_stamp())}
    found |= {key: vars(options)[key] for key in kept}
    done = {tuple(run[key] for key in KEY) for run in found["runs"]}
    dense = adapted(options, open_data(f"parquet:{options.data}", seed=0, batch_size=128, device="cpu"))
    for seed in options.seeds:
        whole = open_data(f"parquet:{options.data}", seed=seed, batch_size=128, device="cpu", limit=options.limit)
        data: Any = Halved(whole)
        found["dense_accuracy"] = round(score(dense, data), 2)
        for share in options.shares:
            for name in options.ways:
                for row in rows(name, dense, data, share, seed, options, done):
                    found["runs"].append(row)
                    print(row, flush=True)
                    options.results.write_text(json.dumps(found, indent=1) + "\n")
    print("dense", found["dense_accuracy"])
    print(table(found["runs"]))


def rows(
    name: str, dense: nn.Module, data: Data, share: float, seed: int, options: argparse.Namespace, done: set[Any]
) -> Iterator[dict[str, Any]]:
    """The cells of a way that are not there yet."""
    for repaired in (True,) if name in SEARCHES else (True, False):
        cut: nn.Module | None = None
        for epochs in options.epochs if name not in WALKS else [epochs for epochs in options.epochs if epochs]:
            cell = (name, repaired, share, seed, epochs, options.distillation)
            if cell in done:
                continue
            start = time.perf_counter()
            if name in WALKS:
                model = walked(name, repaired, dense, data, share, seed, epochs, options)
            else:
                cut = cut or at_once(name, repaired, dense, data, share, seed, options)
                model = trained(cut, dense, data, seed, epochs, options)
            seconds = time.perf_counter() - start
            yield {**dict(zip(KEY, cell, strict=True)), **judged(model, dense, data), "seconds": round(seconds, 1)}


def at_once(
    name: str, repaired: bool, dense: nn.Module, data: Data, share: float, seed: int, options: argparse.Namespace
) -> nn.Module:
    """Cut, and repaired or with BatchNorm as the cut network has it."""
    model = (AT_ONCE | SEARCHES)[name](copy.deepcopy(dense), data, share, seed, argparse.Namespace(epochs=0.0))
    if name in AT_ONCE and repaired:
        return reconstruct(model, dense, data, examples=EXAMPLES, seed=seed).model
    if not repaired:
        reestimate_batchnorm(model, data)
    return model


def trained(
    cut: nn.Module, dense: nn.Module, data: Data, seed: int, epochs: float, options: argparse.Namespace
) -> nn.Module:
    """A copy, fine-tuned for so many epochs."""
    model = copy.deepcopy(cut)
    if epochs:
        teach: dict[str, Any] = {}
        if options.distillation:
            teach["teach"] = Distillation(copy.deepcopy(dense), options.distillation, 4.0)
        tuning = TrainSettings("finetune", epochs, OptimizerChoice(options.learning_rate), seed=seed, speed=SPEED)
        finetune(model, data, TASK, tuning, **teach)
        reestimate_batchnorm(model, data)
    return model


def walked(
    name: str,
    repaired: bool,
    dense: nn.Module,
    data: Data,
    share: float,
    seed: int,
    epochs: float,
    options: argparse.Namespace,
) -> nn.Module:
    """A run of `compress` that walks."""
    settings = Settings(
        seed=seed,
        path_epochs=WALKED * epochs,
        path_points=options.path_points,
        path_learning_rate=options.path_learning_rate,
        finetune_epochs=(1 - WALKED) * epochs,
        finetune_learning_rate=options.learning_rate,
        precision="bfloat16",
        channels_last=True,
        reconstruction=EXAMPLES if repaired else 0,
        distillation=options.distillation,
        round_to=1,
        **WALKS[name],
    )
    found = compress(dense, data.example_inputs(), data, target=Target(macs=share), settings=settings)
    reestimate_batchnorm(found.model, data)
    return found.model


def judged(model: nn.Module, dense: nn.Module, data: Data) -> dict[str, Any]:
    example = data.example_inputs()
    (image,) = example if isinstance(example, tuple) else (example,)
    times = {}
    for batch, rounds in ((1, 60), (64, 15)):
        inputs = (image[:1].repeat(batch, *(1 for _ in image.shape[1:])),)
        (whole, _), (small, _) = time_in_turns([dense, model], inputs, rounds=rounds)
        times[f"time_share_{batch}"] = round(small / whole, 3)
    plan = plan_of(model)
    return {
        "accuracy": round(score(model, data), 2),
        "macs_share": round(count_macs(model, example) / count_macs(dense, example), 4),
        **times,
        "removed_blocks": list(plan.blocks) if plan else [],
    }


def table(runs: list[dict[str, Any]]) -> str:
    """Mean accuracy (deviation; seeds) and time at batch 64: a row for each way, a column for each number of epochs."""
    lines = []
    for distillation, share in dict.fromkeys((run["distillation"], run["share"]) for run in runs):
        here = [run for run in runs if (run["distillation"], run["share"]) == (distillation, share)]
        columns = sorted({run["epochs"] for run in here})
        lines += [f"\n{share:.0%} of the MACs, distillation {distillation:g}\n"]
        lines += ["| way | " + " | ".join(f"{epochs:g}" for epochs in columns) + " | time, batch 64 |"]
        lines += ["|---" * (len(columns) + 2) + "|"]
        for way, repaired in dict.fromkeys((run["way"], run["repaired"]) for run in here):
            mine = [run for run in here if (run["way"], run["repaired"]) == (way, repaired)]
            cells = [summary([run["accuracy"] for run in mine if run["epochs"] == epochs]) for epochs in columns]
            cells.append(f"{statistics.mean(run['time_share_64'] for run in mine):.2f}")
            lines.append(f"| {way}{', repaired' if repaired else ''} | {' | '.join(cells)} |")
    return "\n".join(lines)


def summary(values: list[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread} ({len(values)})"


def options_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="of the dense network")
    parser.add_argument("--work", type=Path, default=Path("runs/schedules"), help="cache of the dense network")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--epochs", nargs="+", type=float, default=[0, 0.25, 1, 2])
    parser.add_argument("--distillation", type=float, default=0.0, help="of all ways, at temperature 4")
    add_shared_options(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
