"""Seconds that ResNet-20 takes for an epoch of training on the CPU: now, in another checkout, and as `auto` computes.

    python benchmarks/speed/bench_epoch.py --before PATH/TO/ANOTHER/CHECKOUT/src [--processes 5] [--steps 30]

Each process trains for two epochs of `--steps` batches of 128 made images (32 x 32), shifted, on one thread, and times
the second. Processes take turns: this checkout in float32, in bfloat16 with channels last, and the other checkout in
float32. Seconds are of the processor, scaled to an epoch of 50,000 images; ratios are of processes that followed each
other. Result: benchmarks/results/epoch.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

RESULT = Path(__file__).parents[1] / "results" / "epoch.json"
SOURCE = Path(__file__).parents[2] / "src"
BATCH, EPOCH = 128, 50_000


def seconds_here(steps: int, precision: str) -> float:
    """Seconds of an epoch, from the second of two short ones."""
    from amsc import training
    from amsc.data import ImageData, ImageSplit
    from amsc.models import open_model
    from amsc.tasks import Classification
    from amsc.training import Speed, TrainSettings, finetune

    choice = getattr(training, "OptimizerChoice", float)(0.01)  # older checkouts take the learning rate alone
    torch.set_num_threads(1)
    torch.manual_seed(0)
    count = steps * BATCH
    part = ImageSplit(torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8), torch.arange(count) % 10)
    splits = {"train": part, "validation": part, "test": part}
    data = ImageData("made", splits, 10, (0.5,) * 3, (0.25,) * 3, BATCH, padding=4)
    model, speed = open_model("resnet20"), Speed(precision, channels_last=precision == "bfloat16")
    starts: list[float] = []
    settings = TrainSettings("finetune", 2, choice, speed=speed)
    finetune(model, data, Classification(), settings, save=lambda state: starts.append(time.process_time()))
    return (starts[1] - starts[0]) * EPOCH / count


def run(source: Path, steps: int, precision: str) -> float:
    command = [sys.executable, __file__, "--steps", str(steps), "--here", precision]
    return float(subprocess.check_output(command, env={**os.environ, "PYTHONPATH": str(source)}, text=True))


def spread(values: list[float]) -> dict[str, Any]:
    return {"median": round(statistics.median(values), 3), "all": [round(value, 3) for value in values]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="the src folder of another checkout")
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--here", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(seconds_here(options.steps, options.here))
        return
    from amsc.measurement import machine_stamp

    sides = {"now": (SOURCE, "float32"), "before": (options.before, "float32"), "bfloat16": (SOURCE, "bfloat16")}
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(options.processes):
        for name, (source, precision) in sides.items():
            found[name].append(run(source, options.steps, precision))
    record: dict[str, Any] = {"seconds_per_epoch": {name: spread(values) for name, values in found.items()}}
    for name, other in (("now", "before"), ("bfloat16", "now")):
        ratios = [one / two for one, two in zip(found[name], found[other], strict=True)]
        record[f"{name}_by_{other}"] = spread(ratios)
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=options.before, text=True).strip()
    record |= {"before": commit, "steps": options.steps, "machine": dict(machine_stamp())}
    print(json.dumps(record, indent=1))
    RESULT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
