"""Accuracy at three budgets: amsc's paths, its ablations and rivals; same dense network, data and epochs for all.

    python benchmarks/evidence/frontier.py --data FOLDER --weights FILE [--seeds 0 1 2] \\
        [--shares 0.6 0.45 0.3] [--arms ...]
    python benchmarks/evidence/frontier.py --data digits --model digits_resnet --epochs 12 --path-epochs 6 \\
        --path-points 6 --dense-epochs 8 --dense-learning-rate 0.1 --results benchmarks/results/frontier_digits.json
    python benchmarks/evidence/frontier.py --data FOLDER --model plain_networks:vgg16_quarter \\
        --dense-epochs 15 --dense-learning-rate 0.1 --limit 20000 --epochs 3 --path-epochs 0.5 \\
        --path-points 4 --shares 0.6 0.4 --seeds 0 1 --results benchmarks/results/frontier_plain.json \\
        --arms proximal "plain, one-standard-error rule" "plain, half of the saving" "plain, as far as it goes" \\
        "L1, uniform"
    python benchmarks/evidence/frontier.py --data digits --model plain_networks:digits_plain \\
        --epochs 12 --path-epochs 6 --path-points 6 --dense-epochs 8 --dense-learning-rate 0.1 --shares 0.5 0.3 0.15 \\
        --results benchmarks/results/frontier_digits_plain.json --arms proximal "plain, as far as it goes" ...
    python benchmarks/evidence/frontier.py --data FOLDER --model resnet56 --weights FILE --dense-epochs 1 --seeds 0 \\
        --shares 0.45 --results benchmarks/results/frontier_resnet56.json

Every arm has `--epochs` epochs in all: one-shot rules cut at once and fine-tune; paths walk for `--path-epochs` of them
and fine-tune for the rest; all train in bfloat16, channels last. The dense network is that of cifar10_jpeg.py. Every
finished run is appended to --results and skipped when the script is started again. "CIFAR-10 JPEG" is not the original
CIFAR-10: compare only within this file.
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from bench_scan import FirstOf, Ranked, Scene, fisher, scene, taylor
from cifar10_jpeg import TASK, adapted, score
from rivals import l1_removal, random_removal
from torch import Tensor, nn

from amsc import Settings, Target, compress, cut, plan_cut, reconstruct, scan, trace
from amsc.data import Data, open_data
from amsc.measurement import count_macs, machine_stamp
from amsc.models import open_model
from amsc.structure import Structure
from amsc.structure.costing import predicted_macs
from amsc.surgery import plan_of
from amsc.training import OptimizerChoice, Speed, TrainSettings, finetune, reestimate_batchnorm

RESULTS = Path(__file__).parents[1] / "results" / "frontier.json"
EXAMPLES = 1024
"""Training images, without labels, of each reconstruction."""
Arm = Callable[[nn.Module, Data, float, int, argparse.Namespace], nn.Module]


def tuning(options: argparse.Namespace, seed: int) -> TrainSettings:
    speed = Speed("bfloat16", channels_last=True)
    return TrainSettings("finetune", options.epochs, OptimizerChoice(options.learning_rate), seed=seed, speed=speed)


def path(*, walks: bool = True, **choices: Any) -> Arm:
    """A run of `compress` with these settings, without distillation, which the other arms have not, and without
    reconstruction if they do not say otherwise; one that does not walk cuts to the target before all training."""

    def run(dense: nn.Module, data: Data, share: float, seed: int, options: argparse.Namespace) -> nn.Module:
        said = {"path_points": options.path_points, "path_learning_rate": options.path_learning_rate}
        said |= {"reconstruction": 0, "distillation": 0.0, "depth_rule": "one-standard-error", "round_to": 1, **choices}
        path_epochs = options.path_epochs if walks else 0.0
        settings = Settings(
            seed=seed,
            path_epochs=path_epochs,
            finetune_epochs=options.epochs - path_epochs,
            finetune_learning_rate=options.learning_rate,
            precision="bfloat16",
            channels_last=True,
            **said,
        )
        return compress(dense, data.example_inputs(), data, target=Target(macs=share), settings=settings).model

    return run


def repaired(arm: Arm) -> Arm:
    """The same arm, with what its cut cost given back before it is fine-tuned."""

    def run(dense: nn.Module, data: Data, share: float, seed: int, options: argparse.Namespace) -> nn.Module:
        model = arm(dense, data, share, seed, argparse.Namespace(**{**vars(options), "epochs": 0.0}))
        model = reconstruct(model, dense, data, examples=EXAMPLES, seed=seed).model
        finetune(model, data, TASK, tuning(options, seed))
        return model

    return run


def at_once(removal: Callable[[nn.Module, Structure, Data, float, int], Mapping[str, Any]]) -> Arm:
    """Cut what `removal` says (as `plan_cut` takes it), then fine-tune."""

    def run(dense: nn.Module, data: Data, share: float, seed: int, options: argparse.Namespace) -> nn.Module:
        structure = trace(dense, data.example_inputs())
        model = cut(dense, plan_cut(structure, **removal(dense, structure, data, share, seed)))
        if options.epochs:
            reestimate_batchnorm(model, data)
            finetune(model, data, TASK, tuning(options, seed))
        return model

    return run


def uniform(choose: Callable[[Structure, int, nn.Module, int], dict[str, list[int]]]) -> Arm:
    """The same share of every layer's channels."""

    def removal(dense: nn.Module, structure: Structure, data: Data, share: float, seed: int) -> Mapping[str, Any]:
        return {"channels": choose(structure, int(share * predicted_macs(structure)), dense, seed)}

    return at_once(removal)


def ranked(score_of: Callable[[Scene], Tensor]) -> Arm:
    """One ranking of the channels of the whole network by derivatives of 512 examples."""

    def removal(dense: nn.Module, structure: Structure, data: Data, share: float, seed: int) -> Mapping[str, Any]:
        it = scene(dense, data, 512, seed)
        choice = Ranked(it.structure, it.found, it.sizes["macs"], dimensions="width")
        choice.scores = score_of(it)
        return {"channels": choice.removal(int(share * predicted_macs(structure))).channels}

    return at_once(removal)


def scanned(dimensions: str) -> Arm:
    def removal(dense: nn.Module, structure: Structure, data: Data, share: float, seed: int) -> Mapping[str, Any]:
        settings = Settings(round_to=1, prices="fisher")
        return scan(dense, data.example_inputs(), data, settings=settings, dimensions=dimensions).removal(macs=share)

    return at_once(removal)


def longer(dense: nn.Module, data: Data, share: float, seed: int, options: argparse.Namespace) -> nn.Module:
    """The dense network, trained for as many epochs as the others in all."""
    model = copy.deepcopy(dense)
    finetune(model, data, TASK, tuning(options, seed))
    return model


L1 = uniform(lambda structure, macs, dense, seed: l1_removal(structure, macs, dense))
WIDTH = {"reconstruction": EXAMPLES, "method": "gates", "depth_share": 0.0, "path_points": 1}
ARMS: dict[str, Arm] = {
    "proximal": path(),
    "proximal, repaired": path(reconstruction=EXAMPLES),
    "equal cost, repaired, then proximal": path(reconstruction=EXAMPLES, depth_rule="equal-cost"),
    "equal cost, repaired, at once": path(walks=False, reconstruction=EXAMPLES, depth_rule="equal-cost"),
    "gates, repaired": path(reconstruction=EXAMPLES, method="gates"),
    "width only, repaired, at once": path(walks=False, **WIDTH),
    "gates": path(method="gates"),
    "gates at once": path(method="gates", path_points=1),
    "proximal, width only": path(depth_share=0.0),
    "proximal, blocks as far as they go": path(depth_share=1.0, depth_rule="share"),
    "plain, one-standard-error rule": path(plain=True),
    "plain, half of the saving": path(plain=True, depth_rule="share"),
    "plain, as far as it goes": path(plain=True, depth_rule="share", depth_share=1.0),
    "amsc weights": path(weights="amsc", currency="params"),
    "ssl weights": path(weights="ssl", currency="params"),
    "gl weights": path(weights="gl", currency="params"),
    "rw weights": path(weights="rw", currency="params"),
    "scan, width only": scanned("width"),
    "scan": scanned("both"),
    "L1, uniform": L1,
    "L1, uniform, repaired": repaired(L1),
    "Taylor": ranked(taylor),
    "random, uniform": uniform(lambda structure, macs, dense, seed: random_removal(structure, macs, seed)),
    "Fisher per MAC": ranked(lambda it: fisher(it) / it.sizes["macs"]),
    "dense, trained longer": longer,
}


def run_one(
    name: str, share: float, seed: int, dense: nn.Module, data: Data, options: argparse.Namespace
) -> dict[str, Any]:
    start = time.perf_counter()
    model = ARMS[name](copy.deepcopy(dense), data, share, seed, options)
    seconds = time.perf_counter() - start
    if options.epochs:  # not what has just been reconstructed
        reestimate_batchnorm(model, data)
    example = data.example_inputs()
    plan = plan_of(model)
    return {
        "arm": name,
        "share": share,
        "seed": seed,
        "accuracy": round(score(model, data), 2),
        "macs_share": round(count_macs(model, example) / count_macs(dense, example), 4),
        "parameters": sum(p.numel() for p in model.parameters()),
        "removed_blocks": list(plan.blocks) if plan else [],
        "seconds": round(seconds, 1),
    }


def table(runs: list[dict[str, Any]], shares: list[float]) -> str:
    lines = ["| arm | " + " | ".join(f"{share:.0%}" for share in shares) + " |", "|---" * (len(shares) + 1) + "|"]
    for name in dict.fromkeys(run["arm"] for run in runs):
        cells = []
        for share in shares:
            values = [run["accuracy"] for run in runs if (run["arm"], run["share"]) == (name, share)]
            spread = f" +- {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.2f}{spread} ({len(values)})" if values else "-")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def options_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="of the dense network; on digits it is trained for each seed")
    parser.add_argument("--work", type=Path, default=Path("runs/cifar10_jpeg"), help="cache of the dense network")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--epochs", type=float, default=2, help="in all")
    parser.add_argument("--path-epochs", type=float, default=0.25)
    parser.add_argument("--judged", type=int, default=5_000, help="test images; a fifth as many for validation")
    add_shared_options(parser)
    return parser.parse_args()


def add_shared_options(parser: argparse.ArgumentParser) -> None:
    """What does not depend on how many epochs there are."""
    parser.add_argument("--data", required=True, help="folder with train.parquet and test.parquet; or digits")
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--shares", nargs="+", type=float, default=[0.6, 0.45, 0.3])
    parser.add_argument("--limit", type=int, default=10_000, help="training examples")
    parser.add_argument("--path-points", type=int, default=3)
    parser.add_argument("--path-learning-rate", type=float, default=0.05)
    parser.add_argument("--learning-rate", type=float, default=0.02)
    parser.add_argument("--dense-epochs", type=float, default=2)
    parser.add_argument("--dense-learning-rate", type=float, default=0.02)
    parser.add_argument("--threads", type=int, default=1)


def opened(options: argparse.Namespace, seed: int) -> tuple[Any, nn.Module]:
    """The data and the dense network."""
    if options.data == "digits":
        data = open_data("digits", seed=seed, batch_size=32, device="cpu")
        torch.manual_seed(seed)
        dense = open_model(options.model, num_classes=10, in_channels=1)
        finetune(
            dense,
            data,
            TASK,
            TrainSettings("dense", options.dense_epochs, OptimizerChoice(options.dense_learning_rate), seed=seed),
        )
        reestimate_batchnorm(dense, data)
        return data, dense
    whole = open_data(f"parquet:{options.data}", seed=seed, batch_size=128, device="cpu", limit=options.limit)
    some: Any = FirstOf(whole, {"test": options.judged, "validation": options.judged // 5})
    return some, adapted(options, some)


def main() -> None:
    options = options_of()
    torch.set_num_threads(options.threads)
    found = json.loads(options.results.read_text()) if options.results.exists() else {"runs": []}
    kept = ("model", "limit", "judged", "epochs", "path_epochs", "path_points", "path_learning_rate", "learning_rate")
    name = "digits" if options.data == "digits" else "CIFAR-10 JPEG"
    found |= {"data": name, **{key: vars(options)[key] for key in kept}, "machine": dict(machine_stamp())}
    for seed in options.seeds:
        data, dense = opened(options, seed)
        found.setdefault("dense_accuracy", {})[str(seed)] = round(score(dense, data), 2)
        for share in options.shares:
            for name in options.arms:
                if any((run["arm"], run["share"], run["seed"]) == (name, share, seed) for run in found["runs"]):
                    continue
                found["runs"].append(run_one(name, share, seed, dense, data, options))
                print(found["runs"][-1], flush=True)
                options.results.write_text(json.dumps(found, indent=1) + "\n")
    print("dense", found["dense_accuracy"])
    print(table(found["runs"], options.shares))


if __name__ == "__main__":
    main()
