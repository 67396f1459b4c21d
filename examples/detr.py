"""A DETR of transformers, with that library's own loss: a detector made of a small ResNet and a transformer.

    pip install transformers
    python examples/detr.py

The data are made on the spot: pictures with one or two squares and discs in noise. A DETR learns to find them from
random weights; amsc looks for one with 60 % of its multiply-adds: heads, hidden units and whole attentions go (the
convolutions keep their channels, since the normalisations behind them are frozen). Beside it stands the dense network,
trained for as long. What a user writes is the task, which hands outputs and boxes to the library.
"""

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision_in_part import make_importable

import amsc
from amsc.data import LoaderData
from amsc.training import OptimizerChoice, TrainSettings, evaluate, finetune, mean_loss

make_importable()
from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig  # noqa: E402

SIZE = 48
Picture = tuple[Tensor, dict[str, Tensor]]


class Outcome(NamedTuple):
    """The run, and (training loss, score on the test pictures) of each network."""

    result: amsc.Result
    figures: dict[str, tuple[float, float]]


class DetrLoss:
    """The library's loss (classes, boxes, overlap, after matching queries to objects); the score is that of each image.

    Targets are a list with `class_labels` and `boxes` (centre and size, as shares) of each image.
    """

    name = "loss of an image"
    higher_is_better = False

    def __init__(self, model: nn.Module) -> None:
        self.config, self.function = model.config, model.loss_function

    def loss(self, output: Any, target: list[dict[str, Tensor]]) -> Tensor:
        return self._loss(output.logits, output.pred_boxes, target)

    def per_example(self, output: Any, target: list[dict[str, Tensor]]) -> Tensor:
        rows = zip(output.logits.split(1), output.pred_boxes.split(1), target, strict=True)
        return torch.stack([self._loss(logits, boxes, [objects]) for logits, boxes, objects in rows])

    def _loss(self, logits: Tensor, boxes: Tensor, target: list[dict[str, Tensor]]) -> Tensor:
        return self.function(logits, target, logits.device, boxes, self.config)[0]


def pictures(count: int, seed: int) -> list[Picture]:
    """Pictures with their objects: squares (0) and discs (1)."""
    chooser = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    made = []
    for _ in range(count):
        image, kinds, boxes = 0.3 * torch.randn(3, SIZE, SIZE, generator=chooser), [], []
        for _ in range(int(torch.randint(1, 3, (1,), generator=chooser))):
            kind, radius = (int(torch.randint(low, high, (1,), generator=chooser)) for low, high in ((0, 2), (5, 10)))
            left, top = (int(torch.randint(radius, SIZE - radius, (1,), generator=chooser)) for _ in range(2))
            square = torch.maximum((x - left).abs(), (y - top).abs()) <= radius
            disc = (x - left) ** 2 + (y - top) ** 2 <= radius**2
            image[kind, square if kind == 0 else disc] += 1.5
            kinds.append(kind)
            boxes.append([left / SIZE, top / SIZE, (2 * radius + 1) / SIZE, (2 * radius + 1) / SIZE])
        made.append((image, {"class_labels": torch.tensor(kinds), "boxes": torch.tensor(boxes)}))
    return made


def split(batch: list[Picture]) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Inputs and targets: pictures in one tensor, objects in a list."""
    return torch.stack([image for image, _ in batch]), [objects for _, objects in batch]


def new_detr() -> nn.Module:
    """A small DETR with random weights."""
    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 24], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    return DetrForObjectDetection(
        DetrConfig(
            backbone_config=backbone,
            use_timm_backbone=False,
            use_pretrained_backbone=False,
            num_labels=2,
            num_queries=8,
            d_model=48,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=192,
            decoder_ffn_dim=192,
            dropout=0.0,
            init_std=0.12,  # for a width of 48
        )
    )


def main(examples: int = 512, dense_epochs: float = 12, epochs: float = 6, seed: int = 0) -> Outcome:
    torch.manual_seed(seed)
    sets = (pictures(count, part) for part, count in enumerate((examples, 96, 96)))
    loaders = (DataLoader(each, 32, shuffle=part == 0, collate_fn=list) for part, each in enumerate(sets))
    data, rate = LoaderData(*loaders, name="shapes", split=split), 0.002
    model = new_detr()
    task = DetrLoss(model)
    train(model, data, task, dense_epochs, rate, seed)
    settings = amsc.Settings(
        seed=seed,
        optimizer="adamw",
        finetune_epochs=epochs,
        finetune_learning_rate=rate / 2,
        path_points=1,
        reconstruction=128,
    )
    result = amsc.compress(
        model, data.example_inputs(), data, task=task, target=amsc.Target(macs=0.6), settings=settings
    )
    longer = copy.deepcopy(model)
    train(longer, data, task, epochs, rate / 2, seed)
    networks = {"dense": model, "dense, trained on": longer, "small": result.model}
    figures = {
        name: (mean_loss(network, data, task), evaluate(network, data, "test", task).score)
        for name, network in networks.items()
    }
    for name, (loss, score) in figures.items():
        print(f"{name:20} loss {loss:.3f}, {task.name} {score:.3f} (test)")
    print(f"MACs: {result.record.after.macs / result.record.before.macs:.1%}")
    print(f"blocks gone: {', '.join(result.record.removed_blocks) or 'none'}")
    return Outcome(result, figures)


def train(model: nn.Module, data: LoaderData, task: DetrLoss, epochs: float, rate: float, seed: int) -> None:
    """Ordinary training, as amsc trains the small network too."""
    finetune(model, data, task, TrainSettings("finetune", epochs, OptimizerChoice(rate, "adamw"), seed=seed))


if __name__ == "__main__":
    main()
