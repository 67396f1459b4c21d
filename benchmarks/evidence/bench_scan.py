"""Accuracy before any fine-tuning at given shares of the MACs: scan beside Taylor, Fisher, L1 and random selection.

    python benchmarks/evidence/bench_scan.py --data FOLDER --weights FILE [--limit 5000] [--test-limit 1000] \\
        [--seeds 0 1]

Every rule ranks the same blocks and channels by the same derivatives, and the same code takes what the budget needs
from the ranking ("both": half of the saving from blocks, "width": channels alone). Networks are cut and verified, and
judged as they are cut and with the statistics of BatchNorm estimated anew. The seed draws the training examples.
"CIFAR-10 JPEG" is not the original CIFAR-10: compare only within this file.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from amsc import cut, plan_cut, trace
from amsc.borrowing import named_tensors
from amsc.data import Data, open_data
from amsc.measurement import machine_stamp
from amsc.models import open_model
from amsc.penalty import find_bypassed_groups, find_coordinates, parameters_held, saved_macs
from amsc.structure import Structure
from amsc.structure.costing import predicted_macs, predicted_parameters
from amsc.surgery import stand_in
from amsc.tasks import Classification
from amsc.training import GateChoice, GateGradients, evaluate, gate_derivatives, reestimate_batchnorm
from amsc.training.removal.removed import Leaf

TASK = Classification()
BATCHNORM_BATCHES = 5


@dataclass(frozen=True)
class FirstOf:
    """`data` with so many examples of some splits, in whole batches."""

    data: Data
    counts: Mapping[str, int]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.data, name)

    def batches(self, split: str, *, seed: int | None = None) -> Iterator[tuple[Any, Tensor]]:
        batches = self.data.batches(split, seed=seed)
        return islice(batches, -(-self.counts[split] // 128)) if split in self.counts else batches


class Ranked(GateChoice):
    """The same choice from a score of each gate: the lowest go first."""

    scores: Tensor

    @cached_property
    def block_order(self) -> tuple[str, ...]:
        blocks = self.scores[: len(self.found.blocks)]
        return tuple(self.found.blocks[i] for i in blocks.argsort().tolist())

    def _ranking(self, blocks: tuple[str, ...]) -> list[Leaf]:
        channels = self.scores[len(self.found.blocks) :]
        return [self.found.channels[i] for i in channels.argsort().tolist()]


@dataclass(frozen=True, eq=False)
class Scene:
    model: nn.Module
    structure: Structure
    found: GateGradients
    sizes: dict[str, Tensor]
    derivative_seconds: float
    seed: int


def scene(model: nn.Module, data: Data, examples: int, seed: int) -> Scene:
    structure = trace(model, data.example_inputs())
    coordinates = find_coordinates(structure, find_bypassed_groups(structure, model))
    sizes = {
        name: torch.cat(held(structure, coordinates)[::-1])
        for name, held in (("params", parameters_held), ("macs", saved_macs))
    }
    start = time.perf_counter()
    found = gate_derivatives(model, structure, coordinates, data, TASK, stand_in=stand_in, examples=examples)
    return Scene(model, structure, found, sizes, time.perf_counter() - start, seed)


def l1(it: Scene) -> Tensor:
    """Mean L1 norm of a filter's weights (Li et al. 2017), of a block's weights for blocks."""
    tensors = named_tensors(it.model)

    def of_block(name: str) -> float:
        held = [tensors[p] for p in it.structure.block(name).parameters if tensors[p].ndim > 1]
        return sum(float(p.detach().abs().sum()) for p in held) / sum(p.shape[0] for p in held)

    def of_channel(leaf: Leaf) -> float:
        members = it.structure.group(leaf[0]).members
        makers = [m for m in members if m.role == "out" and tensors[m.parameter].ndim > 1]
        rows = (tensors[m.parameter].movedim(m.axis, 0)[list(m.indices[leaf[1]])] for m in makers)
        return float(sum(row.detach().abs().sum() for row in rows))

    return torch.tensor([*map(of_block, it.found.blocks), *map(of_channel, it.found.channels)])


def taylor(it: Scene) -> Tensor:
    """Size of the first-order change of the mean loss (Molchanov et al. 2017)."""
    return it.found.gradients.mean(0).abs()


def fisher(it: Scene) -> Tensor:
    """Mean square of the derivative (Theis et al. 2018)."""
    return it.found.gradients.square().mean(0)


def at_random(it: Scene) -> Tensor:
    return torch.rand(it.found.gradients.shape[1], generator=torch.Generator().manual_seed(it.seed))


RULES: dict[str, Callable[[Scene], Tensor]] = {
    "taylor": taylor,
    "fisher": fisher,
    "taylor / macs": lambda it: taylor(it) / it.sizes["macs"],
    "fisher / macs": lambda it: fisher(it) / it.sizes["macs"],
    "l1": l1,
    "random": at_random,
}


def choices(it: Scene) -> Iterator[tuple[str, str, GateChoice]]:
    """(rule, dimensions, choice) of everybody."""
    for dimensions in ("both", "width"):
        for currency in ("macs", "params"):
            for power, words in ((1.0, currency), (0.5, f"sqrt({currency})")):
                chooser = GateChoice(it.structure, it.found, it.sizes[currency], power=power, dimensions=dimensions)
                yield f"scan, {words}", dimensions, chooser
        for rule, score in RULES.items():
            ranked = Ranked(it.structure, it.found, it.sizes["macs"], dimensions=dimensions)
            ranked.scores = score(it)
            yield rule, dimensions, ranked


def run_one(it: Scene, data: Data, choice: GateChoice, share: float) -> dict[str, object]:
    dense, start = predicted_macs(it.structure), time.perf_counter()
    removal = choice.removal(int(share * dense))
    seconds = time.perf_counter() - start
    small = cut(it.model, plan_cut(it.structure, channels=removal.channels, blocks=removal.blocks))
    as_cut = evaluate(small, data, "test", TASK).score
    reestimate_batchnorm(small, data, batches=BATCHNORM_BATCHES)
    return {
        "share": share,
        "macs": predicted_macs(it.structure, removal.channels, removal.blocks),
        "parameters": predicted_parameters(it.structure, removal.channels, removal.blocks),
        "removed_blocks": list(removal.blocks),
        "predicted_increase": round(choice.predicted_increase(removal), 4),
        "accuracy_as_cut": round(100 * as_cut, 2),
        "accuracy_batchnorm_anew": round(100 * evaluate(small, data, "test", TASK).score, 2),
        "choice_seconds": round(seconds, 2),
    }


def table(runs: list[dict[str, Any]], shares: list[float]) -> str:
    lines = ["| rule | may go | " + " | ".join(f"{s:.0%}: as cut / BatchNorm anew" for s in shares) + " | seconds |"]
    lines.append("|---" * (len(shares) + 3) + "|")
    for rule, dimensions in dict.fromkeys((run["rule"], run["dimensions"]) for run in runs):
        mine = [run for run in runs if (run["rule"], run["dimensions"]) == (rule, dimensions)]
        cells = []
        for share in shares:
            here = [run for run in mine if run["share"] == share]
            pair = (statistics.mean(run[key] for run in here) for key in ("accuracy_as_cut", "accuracy_batchnorm_anew"))
            cells.append(" / ".join(f"{value:.1f}" for value in pair))
        seconds = statistics.mean(run["choice_seconds"] for run in mine)
        lines.append(f"| {rule} | {dimensions} | {' | '.join(cells)} | {seconds:.2f} |")
    return "\n".join(lines)


def options_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder with train.parquet and test.parquet")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--results", type=Path, default=Path(__file__).parents[1] / "results" / "scan.json")
    parser.add_argument("--shares", nargs="+", type=float, default=[0.6, 0.45, 0.3])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--examples", type=int, default=512)
    parser.add_argument("--limit", type=int, default=5000, help="training examples that are read")
    parser.add_argument("--test-limit", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    options = options_of()
    if options.data is None or options.weights is None:  # `make bench` has neither
        sys.exit(print("bench_scan: skipped, it needs --data FOLDER and --weights FILE"))
    torch.set_num_threads(options.threads)
    model = open_model(options.model, weights=options.weights).eval()
    runs: list[dict[str, Any]] = []
    found: dict[str, Any] = {
        "data": "CIFAR-10 JPEG",
        "model": options.model,
        "weights": options.weights.parent.name if options.weights.stem == "model" else options.weights.name,
        "examples": options.examples,
        "test_examples": options.test_limit,
        "batchnorm_batches": BATCHNORM_BATCHES,
        "depth_share": 0.5,
        "seeds": options.seeds,
        "machine": dict(machine_stamp()),
        "derivative_seconds": {},
        "runs": runs,
    }
    for seed in options.seeds:
        opened = open_data(f"parquet:{options.data}", seed=seed, batch_size=128, device="cpu", limit=options.limit)
        data: Any = FirstOf(opened, {"test": options.test_limit})
        found["dense_accuracy"] = round(100 * evaluate(model, data, "test", TASK).score, 2)
        it = scene(model, data, options.examples, seed)
        found["derivative_seconds"][str(seed)] = round(it.derivative_seconds, 2)
        print("seed", seed, "dense", found["dense_accuracy"], "derivatives", it.derivative_seconds, flush=True)
        for rule, dimensions, choice in choices(it):
            for share in options.shares:
                runs.append({"rule": rule, "dimensions": dimensions, "seed": seed, **run_one(it, data, choice, share)})
        options.results.write_text(json.dumps(found, indent=1) + "\n")
    print(table(runs, options.shares))


if __name__ == "__main__":
    main()
