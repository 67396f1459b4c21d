"""What soft targets, averaged weights and smoothed labels do for ResNet-20 on CIFAR-10 JPEG at half of its MACs.

    python benchmarks/evidence/recovery.py --data FOLDER --weights FILE [--seeds 0 1] [--finetune-epochs 2]

For each seed one path is walked, and the same network is picked from it and fine-tuned with each option in turn. The
dense network is that of cifar10_jpeg.py. Result: benchmarks/results/recovery.json.
"""

import argparse
import json
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from cifar10_jpeg import adapted, score

from amsc import Settings, Target, compress, pick
from amsc.data import open_data
from amsc.measurement import machine_stamp

RESULTS = Path(__file__).parents[1] / "results" / "recovery.json"
OPTIONS: dict[str, dict[str, float]] = {
    "plain": {},
    "distillation 0.5, temperature 2": {"distillation": 0.5},
    "distillation 0.9, temperature 4": {"distillation": 0.9, "temperature": 4.0},
    "ema 0.98": {"ema": 0.98},
    "label smoothing 0.1": {"label_smoothing": 0.1},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/cifar10_jpeg"), help="cache of the dense network")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--limit", type=int, default=10_000, help="training examples")
    parser.add_argument("--target", type=float, default=0.5)
    parser.add_argument("--path-epochs", type=float, default=1.0)
    parser.add_argument("--finetune-epochs", type=float, default=2.0)
    options = parser.parse_args()
    options.model, options.dense_epochs, options.dense_learning_rate = "resnet20", 2, 0.02
    torch.set_num_threads(1)
    found: dict[str, list[float]] = {name: [] for name in OPTIONS}
    for seed in options.seeds:
        for name, value in one_seed(options, seed).items():
            found[name].append(value)
            print(f"seed {seed}, {name}: {value:.2f} %", flush=True)
    for name, values in found.items():
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{name:34} {statistics.mean(values):.2f} % +- {spread:.2f}")
    said = {key: value for key, value in vars(options).items() if key not in ("data", "weights", "work")}
    RESULTS.write_text(
        json.dumps({"accuracy": found, "options": said, "machine": dict(machine_stamp())}, indent=1) + "\n"
    )
    return 0


def one_seed(options: argparse.Namespace, seed: int) -> dict[str, float]:
    """Test accuracy (%) of the network after fine-tuning with each option."""
    data = open_data(f"parquet:{options.data}", seed=seed, limit=options.limit)
    dense, inputs, target = adapted(options, data), data.example_inputs(), Target(macs=options.target)
    plain: dict[str, Any] = {"reconstruction": 0, "distillation": 0.0, "temperature": 2.0, "round_to": 1}
    plain |= {"depth_rule": "one-standard-error", "precision": "float32"}
    walked = Settings(seed=seed, path_epochs=options.path_epochs, path_points=3, path_learning_rate=0.05, **plain)
    accuracies = {}
    with tempfile.TemporaryDirectory() as folder:
        compress(dense, inputs, data, target=target, settings=replace(walked, finetune_epochs=0.0), out=f"{folder}/run")
        for name, chosen in OPTIONS.items():
            settings = replace(walked, finetune_epochs=options.finetune_epochs, **chosen)
            small = pick(f"{folder}/run", dense, inputs, data, target=target, settings=settings).model
            accuracies[name] = score(small, data)
    return accuracies


if __name__ == "__main__":
    raise SystemExit(main())
