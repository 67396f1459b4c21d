"""ResNet-20 on CIFAR-10 JPEG at 50 % of its MACs: amsc beside random and L1 filter removal, same epochs, three seeds.

    python benchmarks/evidence/cifar10_jpeg.py --data FOLDER --weights FILE [--seeds 0 1 2] [--methods amsc l1 random]

The dense network is first adapted to the JPEG data (once; cached under --work). Every finished run is appended to
--results and skipped when the script is started again, so it can be stopped at any time. "CIFAR-10 JPEG" is not the
original CIFAR-10: compare only within this file.
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rivals import l1_removal, random_removal
from torch import nn

from amsc import Settings, Target, compress, cut, load, plan_cut, save, trace
from amsc.data import Data, open_data, spread_batches
from amsc.measurement import count_macs, machine_stamp
from amsc.models import open_model
from amsc.structure.costing import predicted_macs
from amsc.surgery import plan_of
from amsc.tasks import Classification
from amsc.training import OptimizerChoice, TrainSettings, evaluate, finetune, reestimate_batchnorm

TASK = Classification()
Method = Callable[[nn.Module, Data, argparse.Namespace, int], nn.Module]


@dataclass(frozen=True, eq=False)
class Halved:
    """`data` whose validation images are the first thousand of its test file, and whose test images the second half.

    The given weights were trained on all training images: none of those can tell how good a choice is. On the first
    half of the test file `prices="obs"` was found."""

    data: Data

    def __getattr__(self, name: str) -> Any:
        return getattr(self.data, name)

    def batches(self, split: str, *, seed: int | None = None) -> Iterator[tuple[Any, Any]]:
        if split == "train":
            return self.data.batches("train", seed=seed)
        whole = self.data.batches("test")
        return islice(whole, 40, None) if split == "test" else islice(whole, 8)

    def spread_batches(self, split: str, count: int) -> Iterator[tuple[Any, Any]]:
        return islice(self.batches(split), count) if split != "train" else spread_batches(self.data, split, count)

    def num_batches(self, split: str) -> int:
        return sum(1 for _ in self.batches(split)) if split != "train" else self.data.num_batches("train")

    def num_examples(self, split: str) -> int:
        if split == "train":
            return self.data.num_examples("train")
        return sum(len(target) for _, target in self.batches(split))


def adapted(options: argparse.Namespace, data: Data) -> nn.Module:
    """The dense network, trained for a short time on this data; from the cache if it was done before."""
    folder = options.work / f"dense-{options.model}-{options.dense_epochs:g}"
    if folder.exists():
        return load(folder, lambda: open_model(options.model))
    model = open_model(options.model, weights=options.weights)
    settings = TrainSettings("dense", options.dense_epochs, OptimizerChoice(options.dense_learning_rate), seed=0)
    finetune(model, data, TASK, settings)
    save(model, folder)
    return model


def score(model: nn.Module, data: Data, split: str = "test") -> float:
    return 100 * evaluate(model, data, split, TASK).score


def with_amsc(dense: nn.Module, data: Data, options: argparse.Namespace, seed: int) -> nn.Module:
    settings = Settings(
        seed=seed,
        method=options.path_method,
        path_epochs=options.path_epochs,
        path_points=options.path_points,
        path_learning_rate=options.path_learning_rate,
        weights=options.weights_family,
        finetune_epochs=options.finetune_epochs,
        finetune_learning_rate=options.learning_rate,
        depth_share=options.depth_share,
        depth_rule="one-standard-error",
        reconstruction=0,  # as its rivals, which train in float32 as well
        precision="float32",
        distillation=0.0,
        round_to=1,
    )
    return compress(dense, data.example_inputs(), data, target=Target(macs=options.target), settings=settings).model


def with_removal(choose: Callable[..., dict[str, list[int]]]) -> Method:
    def run(dense: nn.Module, data: Data, options: argparse.Namespace, seed: int) -> nn.Module:
        structure = trace(dense, data.example_inputs())
        channels = choose(structure, int(options.target * predicted_macs(structure)), dense, seed)
        model = cut(dense, plan_cut(structure, channels=channels)).to(memory_format=torch.channels_last)
        epochs = options.path_epochs + options.finetune_epochs
        finetune(
            model, data, TASK, TrainSettings("finetune", epochs, OptimizerChoice(options.learning_rate), seed=seed)
        )
        return model

    return run


def longer(dense: nn.Module, data: Data, options: argparse.Namespace, seed: int) -> nn.Module:
    """The dense network, trained for as many epochs as the others in all."""
    model = copy.deepcopy(dense).to(memory_format=torch.channels_last)
    epochs = options.path_epochs + options.finetune_epochs
    finetune(model, data, TASK, TrainSettings("finetune", epochs, OptimizerChoice(options.learning_rate), seed=seed))
    return model


METHODS: dict[str, Method] = {
    "amsc": with_amsc,
    "l1": with_removal(lambda structure, macs, dense, seed: l1_removal(structure, macs, dense)),
    "random": with_removal(lambda structure, macs, dense, seed: random_removal(structure, macs, seed)),
    "dense, trained longer": longer,
}


def run_one(name: str, seed: int, dense: nn.Module, data: Data, options: argparse.Namespace) -> dict[str, object]:
    start = time.perf_counter()
    model = METHODS[name](copy.deepcopy(dense), data, options, seed)
    seconds = time.perf_counter() - start
    reestimate_batchnorm(model, data)
    example = data.example_inputs()
    return {
        "method": name,
        "seed": seed,
        "accuracy": round(score(model, data), 2),
        "macs": count_macs(model, example),
        "macs_share": round(count_macs(model, example) / count_macs(dense, example), 4),
        "parameters": sum(p.numel() for p in model.parameters()),
        "removed_blocks": list(plan.blocks) if (plan := plan_of(model)) else [],
        "seconds": round(seconds, 1),
        "epochs": [options.path_epochs, options.finetune_epochs],
        "target": options.target,
        "depth_share": options.depth_share,
        "learning_rate": options.learning_rate,
    }


def table(runs: list[dict[str, object]]) -> str:
    lines = ["| method | accuracy, mean | deviation | seeds | MACs |", "|---|---|---|---|---|"]
    for name in METHODS:
        mine = [run for run in runs if run["method"] == name]
        if mine:
            values = [float(str(run["accuracy"])) for run in mine]
            spread = statistics.stdev(values) if len(values) > 1 else float("nan")
            share = statistics.mean(float(str(run["macs_share"])) for run in mine)
            lines.append(f"| {name} | {statistics.mean(values):.2f} | {spread:.2f} | {len(mine)} | {share:.1%} |")
    return "\n".join(lines)


def options_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--work", type=Path, default=Path("runs/cifar10_jpeg"), help="cache of the dense network")
    parser.add_argument("--results", type=Path, default=Path(__file__).parents[1] / "results" / "cifar10_jpeg.json")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--target", type=float, default=0.5)
    parser.add_argument("--dense-epochs", type=float, default=2)
    parser.add_argument("--dense-learning-rate", type=float, default=0.02)
    parser.add_argument("--path-epochs", type=float, default=0.2)
    parser.add_argument("--finetune-epochs", type=float, default=1.8)
    parser.add_argument("--path-points", type=int, default=3)
    parser.add_argument("--path-learning-rate", type=float, default=0.05)
    parser.add_argument("--weights-family", default="fisher", help="weights of amsc's penalty")
    parser.add_argument("--path-method", default="proximal", choices=("proximal", "gates"))
    parser.add_argument("--learning-rate", type=float, default=0.02)
    parser.add_argument("--depth-share", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    options = options_of()
    torch.set_num_threads(options.threads)
    data = open_data(f"parquet:{options.data}", seed=0, batch_size=128, device="cpu")
    dense = adapted(options, data)
    found = json.loads(options.results.read_text()) if options.results.exists() else {"runs": []}
    found |= {
        "data": "CIFAR-10 JPEG",
        "model": options.model,
        "dense_epochs": options.dense_epochs,
        "dense_accuracy": round(score(dense, data), 2),
        "machine": dict(machine_stamp()),
    }
    print("dense", found["dense_accuracy"], flush=True)
    for seed in options.seeds:
        for name in options.methods:
            if any((run["method"], run["seed"]) == (name, seed) for run in found["runs"]):
                continue
            found["runs"].append(run_one(name, seed, dense, data, options))
            print(found["runs"][-1], flush=True)
            options.results.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found["runs"]))


if __name__ == "__main__":
    main()
