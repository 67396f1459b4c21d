"""Depth alone, width alone and both, at equal MACs and at equal latency: untrained, and fine-tuned.

    python benchmarks/evidence/depth.py --data FOLDER --weights FILE [--model resnet56] [--seeds 0 1 2]
        [--targets macs=0.6 macs=0.45 latency=0.6 latency=0.45] [--epochs 0 2] [--limit 10000]

All three ways are amsc's search at equal cost, for "depth" with channels held and for "width" with blocks held. By MACs
no width is rounded, by latency (eager, one thread, batch 64) all are, as by default. Fine-tuning learns from the dense
network in all ways. Each network is timed in turns with the dense one, eager (wall clock) and in onnxruntime (seconds
of the processor). Judged on the second half of the test file, chosen on other images of it (`Halved`): the weights
were trained on all training images. Every finished cell is written at once and skipped when the script is started
again. Result: benchmarks/results/depth.json.
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from cifar10_jpeg import Halved, adapted, score
from schedules import EXAMPLES, judged, trained
from torch import nn
from widths import BATCHES, exported

from amsc import Settings, compress
from amsc.data import Data, open_data
from amsc.errors import TargetError
from amsc.limits.target import parse_target
from amsc.measurement import machine_stamp

RESULTS = Path(__file__).parents[1] / "results" / "depth.json"
WAYS: dict[str, dict[str, Any]] = {"both": {}, "width": {"depth_share": 0.0}, "depth": {"min_channels": 10**6}}
KEY = ("model", "target", "way", "seed", "epochs")


def main() -> None:
    options = options_of()
    torch.set_num_threads(options.threads)
    found = json.loads(options.results.read_text()) if options.results.exists() else {"runs": []}
    found |= {"data": "CIFAR-10 JPEG", "examples": EXAMPLES, "machine": dict(machine_stamp())}
    found |= {key: vars(options)[key] for key in ("limit", "distillation", "learning_rate")}
    dense = adapted(options, open_data(f"parquet:{options.data}", seed=0, batch_size=128, device="cpu"))
    for seed in options.seeds:
        data: Any = Halved(
            open_data(f"parquet:{options.data}", seed=seed, batch_size=128, device="cpu", limit=options.limit)
        )
        found.setdefault("dense", {})[options.model] = round(score(dense, data), 2)
        for target in options.targets:
            for way in options.ways:
                for row in rows(way, target, dense, data, seed, options, found["runs"]):
                    found["runs"].append(row)
                    print(row, flush=True)
                    options.results.write_text(json.dumps(found, indent=1) + "\n")
    print("dense", found["dense"])
    print(table(found["runs"]))


def rows(
    way: str,
    target: str,
    dense: nn.Module,
    data: Data,
    seed: int,
    options: argparse.Namespace,
    runs: list[dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    """The cells of one cut that are not there yet; one without an accuracy where the target cannot be met."""
    done = {tuple(run[key] for key in KEY) for run in runs}
    cells = [(options.model, target, way, seed, epochs) for epochs in options.epochs]
    missing = [cell for cell in cells if cell not in done]
    if not missing:
        return
    start = time.process_time()
    try:
        cut = smaller(way, target, dense, data, seed)
    except TargetError as error:
        yield from ({**dict(zip(KEY, cell, strict=True)), "unreachable": str(error)} for cell in missing)
        return
    seconds = time.process_time() - start
    for cell in missing:
        model = trained(cut, dense, data, seed, cell[-1], options)
        row = judged(model, dense, data) | {"onnxruntime": runtime_shares(model, dense, data)}
        yield {**dict(zip(KEY, cell, strict=True)), **row, "cpu_seconds_to_cut": round(seconds, 1)}


def smaller(way: str, target: str, dense: nn.Module, data: Data, seed: int) -> nn.Module:
    """Cut and reconstructed, untrained."""
    rounding = {"round_to": 1} if target.startswith("macs") else {}
    settings = Settings.of("instant", seed=seed, path_points=1, reconstruction=EXAMPLES, **rounding, **WAYS[way])
    example = data.example_inputs(64)
    return compress(copy.deepcopy(dense), example, data, target=parse_target(target), settings=settings).model


def runtime_shares(model: nn.Module, dense: nn.Module, data: Data) -> dict[str, float]:
    """The share of the dense network's time in onnxruntime, by batch."""
    inputs = data.example_inputs(max(BATCHES))
    seconds = {batch: exported([dense.eval(), model.eval()], inputs[:batch]) for batch in BATCHES}
    return {str(batch): round(small / whole, 3) for batch, (whole, small) in seconds.items()}


def table(runs: list[dict[str, Any]]) -> str:
    """Mean accuracies (deviation), shares of the time and blocks gone: a row for each cell."""
    lines = ["| model | target | way | epochs | accuracy | eager 64 | runtime 1 / 64 | MACs | blocks gone | seeds |"]
    lines += ["|---" * 10 + "|"]
    for key in dict.fromkeys((run["model"], run["target"], run["way"], run["epochs"]) for run in runs):
        here = [run for run in runs if (run["model"], run["target"], run["way"], run["epochs"]) == key]
        if any("unreachable" in run for run in here):
            lines.append("| " + " | ".join(str(part) for part in key) + " | cannot be met |" + " |" * 5)
            continue
        values = [run["accuracy"] for run in here]
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        eager, macs = (statistics.mean(run[name] for run in here) for name in ("time_share_64", "macs_share"))
        runtime = " / ".join(f"{statistics.mean(run['onnxruntime'][str(b)] for run in here):.2f}" for b in BATCHES)
        gone = ", ".join(str(len(run["removed_blocks"])) for run in here)
        cells = (f"{statistics.mean(values):.1f}{spread}", f"{eager:.2f}", runtime, f"{macs:.2f}", gone, str(len(here)))
        lines.append("| " + " | ".join([*(str(part) for part in key), *cells]) + " |")
    return "\n".join(lines)


def options_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--weights", type=Path, required=True, help="of the dense network")
    parser.add_argument("--work", type=Path, default=Path("runs/schedules"), help="cache of the dense network")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--targets", nargs="+", default=["macs=0.6", "macs=0.45", "latency=0.6", "latency=0.45"])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--epochs", nargs="+", type=float, default=[0])
    parser.add_argument("--distillation", type=float, default=0.9, help="of all ways, at temperature 4")
    parser.add_argument("--learning-rate", type=float, default=0.02)
    parser.add_argument("--limit", type=int, default=10_000, help="training examples")
    parser.add_argument("--dense-epochs", type=float, default=2)
    parser.add_argument("--dense-learning-rate", type=float, default=0.02)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
