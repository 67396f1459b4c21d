"""Prices after recovery (`prices="obs"`) beside those before it ("fisher"): ResNet-20 on CIFAR-10 JPEG, width only.

    python benchmarks/evidence/obs_prices.py --data FOLDER --dense FILE [--seeds 0 1 2] [--steps 1 3]

`--dense` holds the state dict of the dense network, adapted to this data (`cifar10_jpeg.py` and `reconstruction.py`
make one). For each seed, share of the MACs and number of steps (scan, cut, reconstruct) the small network is judged on
test images: as it was cut and with BatchNorm estimated anew (one step and the first seed only), and reconstructed along
the stream, all layers refitted. Nothing is trained. The seed decides which training examples are looked at.
Result: benchmarks/results/obs_prices.json; a run that is in it is not made again.
"""

import argparse
import copy
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from cifar10_jpeg import Halved
from torch import nn

import amsc
from amsc.data import Data, open_data
from amsc.jobs.stages.job import recovery_of
from amsc.measurement import machine_stamp
from amsc.models import open_model
from amsc.reconstruction import reconstruct
from amsc.structure.costing import predicted_macs
from amsc.surgery import stand_in
from amsc.tasks import Classification
from amsc.training import GateChoice, choose_gates, find_gates, gate_derivatives, reestimate_batchnorm, scores_of

RESULTS = Path(__file__).parents[1] / "results" / "obs_prices.json"
TASK = Classification()
SCANNED = 512
PRICES = ("fisher", "obs")


def main() -> int:
    options = options_of()
    torch.set_num_threads(options.threads)
    found = json.loads(options.results.read_text()) if options.results.exists() else {"runs": []}
    found |= {
        "data": "CIFAR-10 JPEG",
        "model": options.model,
        "scanned": SCANNED,
        "examples": options.examples,
        "judged": options.judged,
        "threads": options.threads,
        "machine": dict(machine_stamp()),
    }
    done = {(run["seed"], run["share"], run["steps"], run["prices"]) for run in found["runs"]}
    for seed in options.seeds:
        data: Any = open_data(f"parquet:{options.data}", seed=seed, batch_size=128, device="cpu", limit=options.limit)
        if options.second_half:
            data = Halved(data)
        dense = open_model(options.model)
        dense.load_state_dict(torch.load(options.dense, weights_only=True))
        found["dense_accuracy"] = accuracy(dense.eval(), data, options.judged)
        for share in options.shares:
            for steps in options.steps:
                for prices in options.prices:
                    if (seed, share, steps, prices) not in done:
                        run = {"seed": seed, "share": share, "steps": steps, "prices": prices}
                        found["runs"].append(run | one_run(dense, data, options, run))
                        print(found["runs"][-1], flush=True)
                        options.results.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found["runs"]))
    return 0


def options_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--dense", type=Path, required=True)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--shares", nargs="+", type=float, default=[0.6, 0.45, 0.3])
    parser.add_argument("--steps", nargs="+", type=int, default=[1])
    parser.add_argument("--prices", nargs="+", default=list(PRICES), choices=PRICES)
    parser.add_argument("--examples", type=int, default=1024)
    parser.add_argument("--judged", type=int, default=5000, help="test images")
    parser.add_argument(
        "--second-half", action="store_true", help="judge on test images that the prices were not found on"
    )
    parser.add_argument("--limit", type=int, default=20_000, help="training examples that are read")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def accuracy(model: nn.Module, data: Data, judged: int) -> float:
    scores = torch.cat([*_scores(model, data, judged)])[:judged]
    return round(100 * float(scores.double().mean()), 2)


def _scores(model: nn.Module, data: Data, judged: int) -> Any:
    seen = 0
    with torch.no_grad():
        for inputs, target in data.batches("test"):
            if seen >= judged:
                return
            seen += len(target)
            yield scores_of(TASK, model.eval()(inputs), target)


def one_run(dense: nn.Module, data: Data, options: argparse.Namespace, run: dict[str, Any]) -> dict[str, Any]:
    """Accuracies and CPU seconds of one network."""
    example, steps = data.example_inputs(), run["steps"]
    structure = amsc.trace(dense, example)
    total, model = predicted_macs(structure), dense
    accuracies, seconds = {}, {"prices": 0.0, "cuts": 0.0, "reconstruction": 0.0}
    for step in range(1, steps + 1):
        start = time.process_time()
        choice = scanned(model, structure, data, options.examples, run)
        priced = time.process_time()
        removal = choice.removal(int(total * (1 - (1 - run["share"]) * step / steps)))
        small = amsc.cut(model, amsc.plan_cut(structure, channels=removal.channels), example)
        if steps == 1 and run["seed"] == options.seeds[0]:
            accuracies = {"as cut": accuracy(small, data, options.judged), "anew": anew(small, data, options.judged)}
        cut = time.process_time()
        model = reconstruct(small, dense, data, examples=options.examples, seed=run["seed"]).model
        spent = (priced - start, cut - priced, time.process_time() - cut)
        seconds = {name: round(seconds[name] + more, 2) for name, more in zip(seconds, spent, strict=True)}
        structure = amsc.trace(model, example)
    widths = [group.size for group in structure.channels if group.kind != "stream"]
    accuracies["reconstructed"] = accuracy(model, data, options.judged)
    macs = round(predicted_macs(structure) / total, 4)
    return {"accuracy": accuracies, "macs_share": macs, "widths": widths, "cpu_seconds": seconds}


def anew(small: nn.Module, data: Data, judged: int) -> float:
    model = copy.deepcopy(small)
    reestimate_batchnorm(model, data)
    return accuracy(model, data, judged)


def scanned(model: nn.Module, structure: amsc.Structure, data: Data, examples: int, run: dict[str, Any]) -> GateChoice:
    structure, gates = find_gates(structure, model)
    derivatives = gate_derivatives(model, structure, gates, data, TASK, stand_in=stand_in, examples=SCANNED)
    settings = amsc.Settings(prices=run["prices"], seed=run["seed"], reconstruction=examples)
    after = recovery_of(settings, data)
    remainders = after(model, structure, {name for name, _ in gates.channels}) if after else None
    return choose_gates(structure, gates, derivatives, dimensions="width", remainders=remainders)


def table(runs: list[dict[str, Any]]) -> str:
    """Mean accuracies over the seeds."""
    lines = ["| MACs | steps | prices | as cut | BatchNorm anew | reconstructed | seeds | CPU seconds: prices |"]
    lines += ["|---" * 8 + "|"]
    for key in sorted({(-run["share"], run["steps"], run["prices"]) for run in runs}):
        here = [run for run in runs if (-run["share"], run["steps"], run["prices"]) == key]
        cells = []
        for way in ("as cut", "anew", "reconstructed"):
            values = [run["accuracy"][way] for run in here if way in run["accuracy"]]
            cells.append(f"{statistics.mean(values):.1f}" if values else "")
        seconds = statistics.mean(run["cpu_seconds"]["prices"] for run in here)
        lines.append(f"| {-key[0]:.0%} | {key[1]} | {key[2]} | {' | '.join(cells)} | {len(here)} | {seconds:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
