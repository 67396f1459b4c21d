"""What reconstruction gives back of a cut, without labels and training: ResNets on CIFAR-10 JPEG.

    python benchmarks/evidence/reconstruction.py --data FOLDER --weights FILE [--seeds 0 1 2] [--examples 1024]

For each seed the dense network is cut in width by a scan to some shares of its MACs, and rid of each of its blocks
alone. Every small network is judged on the whole test split as it was cut, with BatchNorm estimated anew, and
reconstructed: each layer's own output, along the stream, and along the stream with all layers refitted ("all"), also
those that read what they read before. "CIFAR-10 JPEG" is not the original CIFAR-10: compare only within this file.
Result: benchmarks/results/reconstruction.json. The dense network, trained for two epochs first, is kept in --work.
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
from torch import nn

import amsc
from amsc.data import Data, open_data
from amsc.measurement import machine_stamp
from amsc.models import open_model
from amsc.reconstruction import Reconstruction, reconstruct
from amsc.structure.costing import predicted_macs
from amsc.surgery import CutPlan
from amsc.tasks import Classification
from amsc.training import OptimizerChoice, Speed, TrainSettings, evaluate, finetune, reestimate_batchnorm

RESULTS = Path(__file__).parents[1] / "results" / "reconstruction.json"
TASK = Classification()
TRAINING = TrainSettings("dense", 2, OptimizerChoice(0.02), seed=0, speed=Speed("bfloat16", channels_last=True))
TIMED_BATCHES = 20


def main() -> int:
    options = options_of()
    torch.set_num_threads(options.threads)
    runs: list[dict[str, Any]] = []
    result: dict[str, Any] = {
        "data": "CIFAR-10 JPEG",
        "model": options.model,
        "examples": options.examples,
        "seeds": options.seeds,
        "threads": options.threads,
        "machine": dict(machine_stamp()),
        "runs": runs,
    }
    for seed in options.seeds:
        data = open_data(f"parquet:{options.data}", seed=seed, batch_size=128, device="cpu", limit=options.limit)
        dense = dense_network(options, data)
        result["dense_accuracy"] = accuracy(dense, data)
        result["cpu_seconds_of_an_epoch_of_50000_images"] = epoch_seconds(dense, data)
        print({key: value for key, value in result.items() if key not in ("runs", "machine")}, flush=True)
        for name, share, plan in plans(dense, data, options):
            for way, found in ways(dense, data, plan, options, seed):
                runs.append({"seed": seed, "cut": name, "share": share, "way": way, **found})
                print(runs[-1], flush=True)
            options.results.write_text(json.dumps(result, indent=1) + "\n")
    print(table(runs))
    return 0


def options_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--work", type=Path, default=Path("runs/reconstruction"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--shares", nargs="*", type=float, default=[0.75, 0.6, 0.45, 0.3])
    parser.add_argument("--blocks", action=argparse.BooleanOptionalAction, default=True, help="without each alone too")
    parser.add_argument("--examples", type=int, default=1024)
    parser.add_argument("--limit", type=int, default=20_000, help="training examples that are read")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def dense_network(options: argparse.Namespace, data: Data) -> nn.Module:
    """Trained for two epochs on this data; the same for all seeds, from the file if it was done before."""
    file = options.work / f"{options.model}.pt"
    if file.exists():
        model = open_model(options.model)
        model.load_state_dict(torch.load(file, weights_only=True))
        return model.eval()
    model = open_model(options.model, weights=options.weights)
    finetune(model, data, TASK, TRAINING)
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), file)
    return model.eval()


def accuracy(model: nn.Module, data: Data) -> float:
    return round(100 * evaluate(model, data, "test", TASK).score, 2)


def epoch_seconds(dense: nn.Module, data: Data) -> float:
    """CPU seconds of training in the fastest way that amsc has on a CPU, from some batches."""
    start = time.process_time()
    epochs = TIMED_BATCHES / data.num_batches("train")
    finetune(copy.deepcopy(dense), data, TASK, TrainSettings("dense", epochs, TRAINING.optimizer, speed=TRAINING.speed))
    return round((time.process_time() - start) / (TIMED_BATCHES * 128) * 50_000, 1)


def plans(dense: nn.Module, data: Data, options: argparse.Namespace) -> Iterator[tuple[str, float, CutPlan]]:
    """What is cut, the share of the MACs that is left, and the plan."""
    found = amsc.scan(dense, data.example_inputs(), data, dimensions="width")
    removals: dict[str, dict[str, Any]] = {f"{share:.0%}": dict(found.removal(macs=share)) for share in options.shares}
    if options.blocks:
        outer = [block.name for block in found.structure.blocks if block.name.count(".") == 1]
        removals |= {f"without {name}": {"blocks": [name]} for name in outer}
    for name, removal in removals.items():
        plan = amsc.plan_cut(found.structure, **removal)
        yield name, round(plan.macs / predicted_macs(found.structure), 3), plan


def ways(
    dense: nn.Module, data: Data, plan: CutPlan, options: argparse.Namespace, seed: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The accuracy of the small network as it is and as each way leaves it, and the seconds that takes."""
    small = amsc.cut(dense, plan, data.example_inputs())
    yield "as cut", {"accuracy": accuracy(small, data)}
    anew = copy.deepcopy(small)
    reestimate_batchnorm(anew, data)
    yield "BatchNorm anew", {"accuracy": accuracy(anew, data)}
    for way in ("own", "stream", "all"):
        target, start = "own" if way == "own" else "stream", time.process_time()
        found = reconstruct(small, dense, data, examples=options.examples, seed=seed, target=target, inner=way == "all")
        yield way, {"cpu_seconds": round(time.process_time() - start, 2), **described(found, data)}


def described(found: Reconstruction, data: Data) -> dict[str, Any]:
    layers = {
        layer.name: [
            float(f"{number:.4g}") for number in (layer.error_before, layer.error_after, layer.ridge) if number
        ]
        for layer in found.record.layers
    }
    return {
        "accuracy": accuracy(found.model, data),
        "examples": found.record.examples,
        "layers": layers,
    }


def table(runs: list[dict[str, Any]]) -> str:
    """Mean accuracies over the seeds, and seconds."""
    names = list(dict.fromkeys(run["way"] for run in runs))
    lines = [f"| cut | {' | '.join(names)} | CPU seconds: own, stream, all |", "|---" * (len(names) + 2) + "|"]
    for cut in dict.fromkeys(run["cut"] for run in runs):
        here = [run for run in runs if run["cut"] == cut]
        mean = {
            (way, key): statistics.mean(run[key] for run in here if run["way"] == way and key in run)
            for way in names
            for key in ("accuracy", "cpu_seconds")
            if any(run["way"] == way and key in run for run in here)
        }
        cells = " | ".join(f"{mean[way, 'accuracy']:.1f}" for way in names)
        seconds = ", ".join(f"{mean[way, 'cpu_seconds']:.1f}" for way in ("own", "stream", "all"))
        lines.append(f"| {cut} | {cells} | {seconds} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
