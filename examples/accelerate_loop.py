"""A loop that is written by hand with Accelerate: it trains a network on the digits, halves it on the way, and its
trackers write what happens.

    pip install "amsc[accelerate]"
    python examples/accelerate_loop.py --out runs/accelerate --tracker tensorboard
    python examples/accelerate_loop.py --out runs/accelerate --tracker wandb       # offline; needs wandb

Everything that Accelerate prepares is given to `Compression` as it is. What to log is `compression.watch()`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.nn import functional
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, TensorDataset

import amsc
from amsc.data import open_data
from amsc.models.resnet_cifar import CifarResNet
from amsc.trainers import Compression


def digits(limit: int | None) -> tuple[TensorDataset, torch.Tensor]:
    """Training images with their labels, and one image as the example input."""
    data = open_data("digits", seed=0, batch_size=64, device="cpu", limit=limit)
    images, labels = zip(*data.batches("train", seed=0), strict=True)
    return TensorDataset(torch.cat(images), torch.cat(labels)), data.example_inputs(1)


def main(out: Path, trackers: Sequence[str] = ("tensorboard",), epochs: int = 12, limit: int | None = None) -> Any:
    """Train and halve; returns the compression. The small network is in `out`/small."""
    torch.manual_seed(0)
    rows, example = digits(limit)
    accelerator = Accelerator(cpu=True, log_with=list(trackers), project_dir=str(out))
    accelerator.init_trackers("amsc", {"epochs": epochs}, {"wandb": {"mode": "offline", "dir": str(out)}})
    model = CifarResNet(2, widths=(8, 16, 32), num_classes=10, in_channels=1)
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    loader = DataLoader(rows, batch_size=64, shuffle=True)
    steps = epochs * len(loader)
    model, optimizer, loader, scheduler = accelerator.prepare(
        model, optimizer, loader, CosineAnnealingLR(optimizer, steps)
    )
    compression = Compression(model, optimizer, example, target="macs=50%", steps=steps)
    for _ in range(epochs):
        for images, labels in loader:
            loss = functional.cross_entropy(model(images), labels)
            accelerator.backward(loss)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            compression.update()
            accelerator.log({"loss": loss.item(), **compression.watch()}, step=compression.steps)
    amsc.save(compression.end(), out / "small")
    accelerator.end_training()
    return compression


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/accelerate"))
    parser.add_argument("--tracker", action="append", choices=["tensorboard", "wandb"])
    arguments = parser.parse_args()
    for cut in main(arguments.out, arguments.tracker or ["tensorboard"]).cuts:
        print(cut)
