"""A YOLO of ultralytics, with that library's own data set, loss and validator: the smaller network is a YOLO again.

    pip install ultralytics
    python examples/yolo.py

The data are made on the spot: pictures with one to three squares, discs and triangles in noise, written as ultralytics
wants them. A small YOLO11 learns to find them; amsc looks for one with 60 % of its multiply-adds; what comes out
predicts, is validated, saved, loaded and exported by ultralytics. Beside it stands the dense network, trained for as
long. What a user writes is the task, which hands outputs and boxes to ultralytics, and a `split` that takes its batches
apart.
"""

import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision_in_part import make_importable, put_in_place_of_nms

import amsc
from amsc.data import LoaderData
from amsc.training import OptimizerChoice, TrainSettings, finetune

make_importable()
import cv2  # noqa: E402
import yaml  # noqa: E402
from ultralytics import YOLO  # noqa: E402
from ultralytics.cfg import get_cfg  # noqa: E402
from ultralytics.data.build import build_yolo_dataset  # noqa: E402
from ultralytics.data.utils import check_det_dataset  # noqa: E402
from ultralytics.models.yolo.detect import DetectionValidator  # noqa: E402
from ultralytics.nn.modules import C2f  # noqa: E402
from ultralytics.utils import ROOT  # noqa: E402
from ultralytics.utils.metrics import ap_per_class  # noqa: E402
from ultralytics.utils.nms import TorchNMS  # noqa: E402
from ultralytics.utils.ops import xywh2xyxy  # noqa: E402

put_in_place_of_nms(TorchNMS.nms)

SIZE, BATCH = 96, 16
KINDS = ("square", "disc", "triangle")
WIDTH = 0.125  # of YOLO11; the smallest that ultralytics offers ("n") has 0.25
QUIET: dict[str, Any] = {"imgsz": SIZE, "workers": 0, "verbose": False}


class Outcome(NamedTuple):
    """The run, the small network as a YOLO, and (loss, mAP50-95) on the test pictures of each network."""

    result: amsc.Result
    yolo: YOLO
    figures: dict[str, tuple[float, float]]


class Detection:
    """ultralytics' loss of a batch; the score is the mean average precision of each image (IoU .5 to .95).

    Targets are a list with (kind, x, y, width, height) of each object of an image, as shares of its size.
    """

    name = "mAP of an image"
    higher_is_better = True

    def __init__(self, model: nn.Module, folder: Path) -> None:
        self.criterion = model.init_criterion()  # type: ignore[operator]
        self.validator = DetectionValidator(save_dir=folder / "validator", args={"task": "detect", "conf": 0.05})
        self.validator.end2end = False

    def loss(self, output: Any, target: list[Tensor]) -> Tensor:
        """What ultralytics trains with, divided by the number of images, by which it multiplies."""
        numbers = torch.cat([torch.full((len(boxes),), float(image)) for image, boxes in enumerate(target)])
        boxes = torch.cat(target)
        batch = {"batch_idx": numbers.to(boxes.device), "cls": boxes[:, :1], "bboxes": boxes[:, 1:]}
        return self.criterion(output, batch)[0].sum() / len(target)

    def per_example(self, output: Any, target: list[Tensor]) -> Tensor:
        """Average precision as ultralytics' validator computes it, of one image at a time."""
        found = self.validator.postprocess(output[0])
        return torch.tensor([self._precision(*pair) for pair in zip(found, target, strict=True)])

    def _precision(self, found: dict[str, Tensor], boxes: Tensor) -> float:
        wanted = {"cls": boxes[:, 0], "bboxes": xywh2xyxy(boxes[:, 1:]) * SIZE}
        hits = self.validator._process_batch(found, wanted)["tp"]
        said = (found["conf"].cpu().numpy(), found["cls"].cpu().numpy(), boxes[:, 0].cpu().numpy())
        precision = ap_per_class(hits, *said)[5]
        return float(precision.mean()) if precision.size else 0.0


def draw(chooser: np.random.Generator) -> tuple[np.ndarray, list[str]]:
    """A picture, and a line for each object in it: kind, centre and size as shares of the picture."""
    picture = np.clip(chooser.normal(90, 25, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
    lines = []
    for _ in range(chooser.integers(1, 4)):
        kind, radius = int(chooser.integers(3)), int(chooser.integers(6, 17))
        x, y = (int(place) for place in chooser.integers(radius + 1, SIZE - radius - 1, 2))
        colour = tuple(int(value) for value in chooser.integers(120, 256, 3))
        if kind == 0:
            cv2.rectangle(picture, (x - radius, y - radius), (x + radius, y + radius), colour, -1)
        elif kind == 1:
            cv2.circle(picture, (x, y), radius, colour, -1)
        else:
            corners = [[x, y - radius], [x - radius, y + radius], [x + radius, y + radius]]
            cv2.fillPoly(picture, [np.array(corners)], colour)
        side = (2 * radius + 1) / SIZE
        lines.append(f"{kind} {x / SIZE:.5f} {y / SIZE:.5f} {side:.5f} {side:.5f}")
    return picture, lines


def write_data(folder: Path, examples: int) -> Path:
    """The pictures of three splits with their labels, and the file that describes them to ultralytics."""
    counts = {"train": examples, "val": max(16, examples // 5), "test": max(16, examples)}
    for number, (split, count) in enumerate(counts.items()):
        chooser = np.random.default_rng(number)
        images, labels = folder / "images" / split, folder / "labels" / split
        for made in (images, labels):
            made.mkdir(parents=True)
        for index in range(count):
            picture, lines = draw(chooser)
            cv2.imwrite(str(images / f"{index}.png"), picture)
            (labels / f"{index}.txt").write_text("\n".join(lines))
    places = {split: f"images/{split}" for split in counts}
    file = folder / "data.yaml"
    file.write_text(yaml.safe_dump({"path": str(folder), **places, "names": dict(enumerate(KINDS))}))
    return file


def read_data(file: Path) -> LoaderData:
    """ultralytics' own data set, without augmentation, in torch's loaders."""
    described = check_det_dataset(str(file))
    settings = get_cfg(overrides={"task": "detect", "imgsz": SIZE, "cache": "ram"})
    loaders = []
    for split in ("train", "val", "test"):
        pictures = build_yolo_dataset(settings, described[split], BATCH, described, mode="val")
        loaders.append(DataLoader(pictures, BATCH, shuffle=split == "train", collate_fn=pictures.collate_fn))
    return LoaderData(*loaders, name="shapes", split=take_apart)


def take_apart(batch: dict[str, Any]) -> tuple[Tensor, list[Tensor]]:
    """Inputs and targets: pictures between 0 and 1, and the objects of each."""
    objects = torch.cat((batch["cls"], batch["bboxes"]), 1)
    return batch["img"].float() / 255, [objects[batch["batch_idx"] == image] for image in range(len(batch["img"]))]


def new_yolo(folder: Path) -> YOLO:
    """A narrow YOLO11 with random weights."""
    plan = yaml.safe_load((ROOT / "cfg/models/11/yolo11.yaml").read_text())
    file = folder / "yolo11n.yaml"
    file.write_text(yaml.safe_dump({**plan, "nc": len(KINDS), "scales": {"n": [0.5, WIDTH, 1024]}}))
    yolo = YOLO(str(file))
    yolo.model.args = get_cfg(overrides={"task": "detect", "imgsz": SIZE})  # the loss reads its weights there
    yolo.model.names = dict(enumerate(KINDS))
    return yolo


def as_yolo(model: nn.Module, like: YOLO) -> YOLO:
    """The network in ultralytics' hands: a copy, since predicting and validating fuse layers in place."""
    wrapper = YOLO(like.model_name)
    wrapper.model = copy.deepcopy(model)
    for module in wrapper.model.modules():
        if isinstance(module, C2f):  # its export splits by this number, which its forward does not read
            module.c = module.cv1.conv.out_channels // 2
    return wrapper


def train(model: nn.Module, data: LoaderData, task: Detection, epochs: float, rate: float, seed: int) -> None:
    """Ordinary training, as amsc trains the small network too. (A trained YOLO("best.pt") needs none.)"""
    finetune(model, data, task, TrainSettings("finetune", epochs, OptimizerChoice(rate, "adamw"), seed=seed))


def figures(yolo: YOLO, file: Path, data: LoaderData, task: Detection, model: nn.Module) -> tuple[float, float]:
    """ultralytics' loss on the test pictures, and what its validator says of them (mAP50-95)."""

    def losses() -> Iterator[float]:
        for images, target in data.batches("test"):
            yield float(task.loss(model(images), target))

    with torch.no_grad():
        loss = float(np.mean(list(losses())))
    found = yolo.val(data=str(file), split="test", batch=BATCH, plots=False, project=str(file.parent), **QUIET)
    return loss, float(found.box.map)


def main(
    examples: int = 320, dense_epochs: float = 12, epochs: float = 8, seed: int = 0, folder: Path | None = None
) -> Outcome:
    folder = Path(tempfile.mkdtemp()) if folder is None else folder
    file = write_data(folder, examples)
    data, rate = read_data(file), 0.002
    torch.manual_seed(seed)
    yolo = new_yolo(folder)
    model, task = yolo.model, Detection(yolo.model, folder)
    train(model, data, task, dense_epochs, rate, seed)

    settings = amsc.Settings(
        seed=seed,
        optimizer="adamw",
        finetune_epochs=epochs,
        finetune_learning_rate=rate / 2,
        path_points=1,
        depth_share=0,  # channels alone: the search for blocks takes longer than all else here
        reconstruction=320,
    )
    result = amsc.compress(
        model, data.example_inputs(), data, task=task, target=amsc.Target(macs=0.6), settings=settings
    )
    longer = copy.deepcopy(model)
    train(longer, data, task, epochs, rate / 2, seed)
    networks = {"dense": model, "dense, trained on": longer, "small": result.model}
    told = {}
    for name, network in networks.items():
        told[name] = figures(as_yolo(network.eval(), yolo), file, data, task, network)
    show(result, told)
    return Outcome(result, as_yolo(result.model, yolo), told)


def show(result: amsc.Result, told: dict[str, tuple[float, float]]) -> None:
    record = result.record
    for name, (loss, precision) in told.items():
        print(f"{name:20} loss {loss:.3f}, mAP50-95 {precision:.3f}")
    print(f"MACs: {record.after.macs / record.before.macs:.1%}, parameters: {record.after.parameters:,}")
    print(f"blocks gone: {', '.join(record.removed_blocks) or 'none'}")


def use(yolo: YOLO, folder: Path) -> None:
    """What one does with a YOLO: predict, save, load, export."""
    picture = str(next((folder / "images" / "test").glob("*.png")))
    print("found:", yolo.predict(picture, **QUIET)[0].verbose())
    yolo.save(folder / "small.pt")
    again = YOLO(str(folder / "small.pt"))
    print("found by the one that was saved:", again.predict(picture, **QUIET)[0].verbose())
    for options in ({"format": "torchscript"}, {"format": "onnx", "simplify": False}):
        exported = YOLO(str(again.export(imgsz=SIZE, **options)), task="detect")
        print(f"found by the {options['format']} file:", exported.predict(picture, **QUIET)[0].verbose())


if __name__ == "__main__":
    place = Path(tempfile.mkdtemp())
    outcome = main(folder=place)
    use(outcome.yolo, place)
