"""What the AMSC authors report about depth and width, tried on the embedded digits at fixed strengths.

    python benchmarks/evidence/paper_claims.py [--seeds 0 1 2] [--epochs 12]

Every run starts from a dense ResNet-20 for the digits (8 epochs) and trains with the penalty at strengths that do not
change (SGD, the last quarter at a tenth of the learning rate), with the paper's weights. A strength is given as a
multiple of the one that would empty the first block (for width: half of the channels) in the whole run if the loss did
not resist. Nothing is cut; what is exactly zero is counted. Result: benchmarks/results/paper_claims.json.
"""

import argparse
import copy
import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from cifar10_jpeg import TASK, score
from torch import nn

from amsc import Penalty, ProximalStep, Settings, Target, compress, trace
from amsc.data import Data, open_data
from amsc.measurement import machine_stamp
from amsc.models import open_model
from amsc.models.resnet_cifar import CifarResNet
from amsc.penalty import emptying_times
from amsc.structure import Structure
from amsc.structure.cutting import after_removal
from amsc.training import Batches, OptimizerChoice, Stretch, TrainSettings, finetune, reestimate_batchnorm, train_steps

RESULTS = Path(__file__).parents[1] / "results" / "paper_claims.json"
RATE, MOMENTUM = 0.05, 0.9


class Scene:
    """A dense network trained on the digits, its structure and the data."""

    def __init__(self, seed: int, epochs: float, model: nn.Module | None = None) -> None:
        self.seed, self.epochs = seed, epochs
        self.data: Data = open_data("digits", seed=seed, batch_size=32, device="cpu")
        torch.manual_seed(seed)
        self.dense = model or open_model("digits_resnet", num_classes=10, in_channels=1)
        finetune(self.dense, self.data, TASK, TrainSettings("dense", 8, OptimizerChoice(0.1), seed=seed))
        reestimate_batchnorm(self.dense, self.data)
        self.structure: Structure = trace(self.dense, self.data.example_inputs())

    def fitted(self, depth: float, width: float, weights: str = "amsc") -> dict[str, Any]:
        """Trained at these strengths: the blocks and channels left, test accuracy."""
        net = copy.deepcopy(self.dense)
        penalty = Penalty(self.structure, net, weights=weights)
        optimizer = ProximalStep(torch.optim.SGD(net.parameters(), lr=RATE, momentum=MOMENTUM), penalty)
        steps = round(self.epochs * self.data.num_batches("train"))
        leaf_times, block_times = emptying_times(penalty, RATE / (1 - MOMENTUM))
        optimizer.depth_strength = depth * float(block_times.min()) / steps
        optimizer.width_strength = width * float(leaf_times.median()) / steps

        def before(step: int) -> None:
            if step == steps * 3 // 4:
                for group in optimizer.param_groups:
                    group["lr"] = 0.1 * RATE

        batches = Batches(self.data, self.seed, "claims").take(steps)
        train_steps(net, optimizer, batches, TASK, Stretch("claims", 0, steps), before=before)
        reestimate_batchnorm(net, self.data)
        gone = [name for name, zero in zip(penalty.blocks, penalty.zero_blocks().tolist(), strict=True) if zero]
        left = {group.name for group in after_removal(self.structure, {}, gone).channels}
        zeros = zip(penalty.channels, penalty.zero_channels().tolist(), strict=True)
        kept = [name for (name, _), zero in zeros if not zero and name in left]
        return {
            "depth": depth,
            "width": width,
            "weights": weights,
            "blocks_gone": gone,
            "channels_left": {name: kept.count(name) for name in dict.fromkeys(kept)},
            "accuracy": round(score(net, self.data), 2),
        }


def depth_norms(seed: int) -> Iterable[dict[str, Any]]:
    """The sum of the blocks' norms of networks of several depths and widths, trained alike."""
    for width in (8, 16):
        for blocks in (1, 2, 3, 4):
            torch.manual_seed(seed)
            model = CifarResNet(blocks, widths=(width, 2 * width, 4 * width), num_classes=10, in_channels=1)
            scene = Scene(seed, 0, model)
            norms = Penalty(scene.structure, scene.dense).block_norms()
            total = round(float(norms.sum()), 2)
            yield {"width": width, "blocks": 3 * blocks, "norms": total, "accuracy": round(score(model, scene.data), 2)}


def walked(scene: Scene, points: int) -> dict[str, Any]:
    """A path in so many points, to 45 % of the MACs, and four epochs of fine-tuning, as the paper has it: without
    reconstruction and distillation."""
    settings = Settings(
        seed=scene.seed,
        depth_rule="one-standard-error",
        path_epochs=6,
        path_points=points,
        path_learning_rate=RATE,
        finetune_epochs=4,
        batch_size=32,
        reconstruction=0,
        distillation=0.0,
        round_to=1,
    )
    result = compress(scene.dense, scene.data.example_inputs(), scene.data, target=Target(macs=0.45), settings=settings)
    return {"points": points, "accuracy": round(100 * result.record.score_after, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=float, default=12)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {"machine": dict(machine_stamp()), "epochs": options.epochs, "seeds": {}}
    for seed in options.seeds:
        scene = Scene(seed, options.epochs)
        found["seeds"][str(seed)] = {
            "dense": round(score(scene.dense, scene.data), 2),
            "depth strengths": [scene.fitted(depth, 0.0) for depth in (0, 0.3, 1, 3, 10, 30, 100)],
            "both": [scene.fitted(10, 0), scene.fitted(0, 1), scene.fitted(10, 1)],
            "families": [scene.fitted(0, 1, weights) for weights in ("ssl", "gl", "rw")],
            "points": [walked(scene, points) for points in (3, 6, 12, 24)],
            "depth norms": list(depth_norms(seed)),
        }
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
        for row in found["seeds"][str(seed)]["depth strengths"]:
            print(seed, row["depth"], len(row["blocks_gone"]), row["blocks_gone"], row["accuracy"], flush=True)
    rows = [row for part in found["seeds"].values() for row in part["depth strengths"]]
    for depth in dict.fromkeys(row["depth"] for row in rows):
        values = [row["accuracy"] for row in rows if row["depth"] == depth]
        print(f"lambda0 x {depth:g}: {statistics.mean(values):.2f}")


if __name__ == "__main__":
    main()
