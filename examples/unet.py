"""A segmentation U-Net: an encoder, a decoder and the connections between them, on pictures made on the spot.

    python examples/unet.py

Every picture has discs and bars in noise; the network says of each pixel whether it is background, disc or bar. The
channels of a connection are read in two places, which amsc finds by itself; `amsc.tasks.Segmentation` is built in.
Beside the small network stands the dense one, trained for as long.
"""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import amsc
from amsc.data import LoaderData
from amsc.tasks import Segmentation
from amsc.training import OptimizerChoice, TrainSettings, evaluate, finetune, mean_loss

SIZE, CLASSES = 32, 3


class Outcome(NamedTuple):
    """The run, and (training loss, score on the test pictures) of each network."""

    result: amsc.Result
    figures: dict[str, tuple[float, float]]


def pair(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions, each with its normalisation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
    )  # fmt: skip


class UNet(nn.Module):
    """(batch, 1, size, size) -> (batch, classes, size, size), as in Ronneberger et al. 2015 (arXiv:1505.04597)."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.fine, self.middle, self.coarse = pair(1, width), pair(width, 2 * width), pair(2 * width, 4 * width)
        self.to_middle = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.to_fine = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.middle_again, self.fine_again = pair(4 * width, 2 * width), pair(2 * width, width)
        self.head = nn.Conv2d(width, CLASSES, 1)
        self.pool = nn.MaxPool2d(2)

    def forward(self, images: Tensor) -> Tensor:
        fine = self.fine(images)
        middle = self.middle(self.pool(fine))
        x = self.to_middle(self.coarse(self.pool(middle)))
        x = self.to_fine(self.middle_again(torch.cat((middle, x), 1)))
        return self.head(self.fine_again(torch.cat((fine, x), 1)))


def pictures(count: int, seed: int) -> TensorDataset:
    """Pictures and the class of each pixel. A disc is round and a bar is not; both are as bright."""
    chooser = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    images, labels = 0.4 * torch.randn(count, 1, SIZE, SIZE, generator=chooser), torch.zeros(count, SIZE, SIZE)
    for image, label in zip(images, labels, strict=True):
        for kind in (1, 2):
            left, top, size = (int(torch.randint(5, SIZE - 5, (1,), generator=chooser)) for _ in range(3))
            radius = 3 + size % 4
            disc = (x - left) ** 2 + (y - top) ** 2 <= radius**2
            bar = ((x - left).abs() <= 2 * radius) & ((y - top).abs() <= radius // 2)
            inside = disc if kind == 1 else bar
            image[0, inside], label[inside] = image[0, inside] + 1, kind
    return TensorDataset(images, labels.long())


def main(examples: int = 640, dense_epochs: float = 10, epochs: float = 5, seed: int = 0) -> Outcome:
    torch.manual_seed(seed)
    sets = (pictures(count, split) for split, count in enumerate((examples, 128, 128)))
    data = LoaderData(*(DataLoader(each, 32, shuffle=split == 0) for split, each in enumerate(sets)), name="shapes")
    model, task, rate = UNet(), Segmentation(), 0.003
    train(model, data, dense_epochs, rate, seed)
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
    train(longer, data, epochs, rate / 2, seed)
    networks = {"dense": model, "dense, trained on": longer, "small": result.model}
    figures = {
        name: (mean_loss(network, data, task, batches=20), evaluate(network, data, "test", task).score)
        for name, network in networks.items()
    }
    for name, (loss, score) in figures.items():
        print(f"{name:20} loss {loss:.3f}, {task.name} {score:.3f} (test)")
    print(f"MACs: {result.record.after.macs / result.record.before.macs:.1%}")
    print(f"blocks gone: {', '.join(result.record.removed_blocks) or 'none'}")
    return Outcome(result, figures)


def train(model: nn.Module, data: LoaderData, epochs: float, rate: float, seed: int) -> None:
    """Ordinary training, as amsc trains the small network too."""
    choice = OptimizerChoice(rate, "adamw")
    finetune(model, data, Segmentation(), TrainSettings("finetune", epochs, choice, seed=seed))


if __name__ == "__main__":
    main()
