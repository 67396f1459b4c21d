"""No labels: three networks with outputs of three kinds, to 60 % of their MACs, and how well they agree afterwards.

    python benchmarks/evidence/imitation.py [--networks classifier detector autoencoder] [--seeds 0 1 2]

Each dense network is trained with its own labels first (the ResNet for the digits, the detector of examples/, an
autoencoder of digits that returns images and codes in a dict); amsc then sees inputs alone. Agreement on the test split
of the network that is removed of the same by a scan and neither reconstructed nor trained ("as cut"), of the default
search untrained ("instant") and after its 16 epochs. "Divergence" is the score of the task imitation (0: the same
outputs); the other number is the network's own: the share of images with the same class, the F1 of the centres against
the boxes, and the error of the images against the inputs, each beside that of the dense network.
Finished rows are written at once and skipped when the script is started again: benchmarks/results/imitation.json.
"""

import argparse
import copy
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

import amsc
from amsc.data import Data, LoaderData, inputs_alone, open_data
from amsc.data.imitated import Imitated
from amsc.measurement import count_macs, machine_stamp
from amsc.models import open_model
from amsc.tasks import Classification, Imitation
from amsc.training import OptimizerChoice, TrainSettings, evaluate, finetune, reestimate_batchnorm

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import detection

RESULTS = Path(__file__).parents[1] / "results" / "imitation.json"
SHARE = 0.6


@dataclass(frozen=True)
class Subject:
    """A trained network, inputs alone, and what it is worth by its own measure."""

    model: nn.Module
    data: Data
    measure: str
    worth: Callable[[nn.Module], float]


class Autoencoder(nn.Module):
    """(batch, 1, 8, 8) -> {"image": the same shape, "code": (batch, 8)}."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Flatten(), nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 48), nn.ReLU())
        self.code = nn.Linear(48, 8)
        self.decode = nn.Sequential(nn.Linear(8, 48), nn.ReLU(), nn.Linear(48, 96), nn.ReLU(), nn.Linear(96, 64))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        code = self.code(self.encode(x))
        return {"image": self.decode(code).view_as(x), "code": code}


@dataclass(frozen=True)
class Copying:
    """The squared error of the images."""

    name: str = "error of the images"
    higher_is_better: bool = False

    def loss(self, output: dict[str, Tensor], target: Tensor) -> Tensor:
        return functional.mse_loss(output["image"], target)

    def per_example(self, output: dict[str, Tensor], target: Tensor) -> Tensor:
        return (output["image"] - target).square().flatten(1).mean(1)


def alone(images: dict[str, Any]) -> LoaderData:
    """Loaders of the inputs of each split, in batches of 32."""
    chooser = torch.Generator().manual_seed(0)
    loaders = (DataLoader(part, 32, shuffle=name == "train", generator=chooser) for name, part in images.items())
    return LoaderData(*loaders, name="inputs alone", split=inputs_alone)


def digits(seed: int) -> tuple[Data, dict[str, Tensor]]:
    data = open_data("digits", seed=seed, batch_size=32, device="cpu")
    splits = ("train", "validation", "test")
    return data, {split: torch.cat([inputs for inputs, _ in data.batches(split)]) for split in splits}


def classifier(seed: int) -> Subject:
    data, images = digits(seed)
    model = open_model("digits_resnet")
    finetune(model, data, Classification(), TrainSettings("dense", 8, OptimizerChoice(0.1), seed=seed))
    reestimate_batchnorm(model, data)
    wanted = model.eval()(images["test"]).argmax(1)
    return Subject(
        model,
        alone(images),
        "share of the same classes",
        lambda small: float((small.eval()(images["test"]).argmax(1) == wanted).float().mean()),
    )


def detector(seed: int) -> Subject:
    task, parts = detection.FindSquares(), {}
    for number, (name, count) in enumerate((("train", 2000), ("validation", 400), ("test", 400))):
        parts[name] = detection.pictures(count, 3 * seed + number)
    loaders = (DataLoader(part, 32, shuffle=name == "train", collate_fn=list) for name, part in parts.items())
    data = LoaderData(*loaders, name="squares", split=detection.split)
    model = detection.Detector()
    finetune(model, data, task, TrainSettings("dense", 8, OptimizerChoice(0.02), seed=seed))
    reestimate_batchnorm(model, data)
    images = {name: torch.stack([image for image, _ in part]) for name, part in parts.items()}
    return Subject(model, alone(images), task.name, lambda small: evaluate(small, data, "test", task).score)


def autoencoder(seed: int) -> Subject:
    _, images = digits(seed)
    pairs = {name: list(zip(part, part, strict=True)) for name, part in images.items()}
    loaders = (DataLoader(part, 32, shuffle=name == "train") for name, part in pairs.items())
    data, task = LoaderData(*loaders, name="digits"), Copying()
    model = Autoencoder()
    choice = OptimizerChoice(0.003, kind="adamw", weight_decay=0.0)
    finetune(model, data, task, TrainSettings("dense", 40, choice, seed=seed))
    return Subject(model, alone(images), task.name, lambda small: evaluate(small, data, "test", task).score)


NETWORKS: dict[str, Callable[[int], Subject]] = {
    "classifier": classifier,
    "detector": detector,
    "autoencoder": autoencoder,
}


def row(subject: Subject, small: nn.Module) -> dict[str, float]:
    score = evaluate(small, Imitated(subject.data, subject.model), "test", Imitation()).score
    example = subject.data.example_inputs()
    share = count_macs(small, example) / count_macs(subject.model, example)
    return {"divergence": round(score, 4), "own": round(subject.worth(small), 4), "macs_share": round(share, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = json.loads(options.results.read_text()) if options.results.exists() else {"runs": []}
    found |= {"share": SHARE, "machine": dict(machine_stamp())}
    for name in options.networks:
        for seed in options.seeds:
            if (name, seed) in {(run["network"], run["seed"]) for run in found["runs"]}:
                continue
            torch.manual_seed(seed)
            found["runs"].append({"network": name, "seed": seed, **agreements(NETWORKS[name](seed), seed)})
            print(found["runs"][-1], flush=True)
            options.results.write_text(json.dumps(found, indent=1) + "\n")


def agreements(subject: Subject, seed: int) -> dict[str, Any]:
    model, example, task = subject.model, subject.data.example_inputs(), Imitation()
    scanned = amsc.scan(copy.deepcopy(model), example, subject.data, task=task, settings=amsc.Settings(seed=seed))
    cut = amsc.cut(model, amsc.plan_cut(scanned.structure, **scanned.removal(macs=SHARE)), example)

    def compressed(effort: str) -> nn.Module:
        settings = amsc.Settings.of(effort, seed=seed, path_points=1)
        target = amsc.Target(macs=SHARE)
        return amsc.compress(
            copy.deepcopy(model), example, subject.data, task=task, target=target, settings=settings
        ).model

    return {
        "measure": subject.measure,
        "dense": round(subject.worth(model), 4),
        "as cut": row(subject, cut),
        "instant": row(subject, compressed("instant")),
        "default": row(subject, compressed("standard")),
    }


if __name__ == "__main__":
    main()
