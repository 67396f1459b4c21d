"""A detector's loss: a small network that finds squares in noise, on images made on the spot, loses layers and filters.

    python examples/detection.py

Each image has one to three bright squares; targets are a list with the boxes of each image. The network says for every
cell of a grid whether the centre of a square lies in it, and how large the square is. What a user writes is the task,
which knows how boxes become cells, and a `split` that takes a batch apart.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

import amsc
from amsc.data import LoaderData

SIZE, CELL = 32, 4
GRID = SIZE // CELL


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x))))))


class Detector(nn.Module):
    """(batch, 1, 32, 32) -> (batch, 2, 8, 8): the logit of a centre, and the side as a share of the image."""

    def __init__(self, width: int = 24, depth: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        )  # fmt: skip
        self.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(images)))


@dataclass(frozen=True)
class FindSquares:
    """Cross-entropy of the centres and squared error of the sides; the score is the F1 of the cells of each image."""

    name: str = "F1 of the centres"
    higher_is_better: bool = True

    def loss(self, output: Tensor, target: list[Tensor]) -> Tensor:
        centres, sides = cells(target, output.device)
        few = torch.tensor(8.0, device=output.device)  # there are far more cells without a centre
        found = functional.binary_cross_entropy_with_logits(output[:, 0], centres, pos_weight=few)
        wrong = ((output[:, 1] - sides).square() * centres).sum() / centres.sum().clamp(min=1)
        return found + wrong

    def per_example(self, output: Tensor, target: list[Tensor]) -> Tensor:
        centres = cells(target, output.device)[0].flatten(1)
        said = (output[:, 0] > 0).float().flatten(1)
        return 2 * (said * centres).sum(1) / (said.sum(1) + centres.sum(1)).clamp(min=1)


def cells(boxes: list[Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """Where centres are (0 or 1), and the sides there. Boxes: (square, 3): x and y of the centre, side, as shares."""
    centres = torch.zeros(len(boxes), GRID, GRID, device=device)
    sides = torch.zeros_like(centres)
    for image, mine in enumerate(boxes):
        x, y = (mine[:, :2] * GRID).long().clamp(max=GRID - 1).unbind(1)
        centres[image, y, x], sides[image, y, x] = 1.0, mine[:, 2]
    return centres, sides


def pictures(count: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Images with their boxes."""
    chooser = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        image = 0.3 * torch.randn(1, SIZE, SIZE, generator=chooser)
        boxes = []
        for _ in range(int(torch.randint(1, 4, (1,), generator=chooser))):
            side = int(torch.randint(4, 9, (1,), generator=chooser))
            left, top = (int(torch.randint(0, SIZE - side, (1,), generator=chooser)) for _ in range(2))
            image[0, top : top + side, left : left + side] += 1.0
            boxes.append([(left + side / 2) / SIZE, (top + side / 2) / SIZE, side / SIZE])
        made.append((image, torch.tensor(boxes)))
    return made


def split(batch: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, list[Tensor]]:
    """Inputs and targets: images in one tensor, boxes in a list with an entry for each."""
    return torch.stack([image for image, _ in batch]), [boxes for _, boxes in batch]


def main(examples: int = 2000, epochs: float = 4) -> amsc.Result:
    torch.manual_seed(0)
    loaders = (
        DataLoader(pictures(count, seed), 32, shuffle=seed == 0, collate_fn=list)  # type: ignore[arg-type]
        for seed, count in enumerate((examples, 400, 400))
    )
    data = LoaderData(*loaders, name="squares", split=split)
    settings = amsc.Settings(
        dense_epochs=2 * epochs,
        finetune_epochs=2 * epochs,
        dense_learning_rate=0.02,
    )
    model = Detector()
    result = amsc.compress(
        model, data.example_inputs(), data, task=FindSquares(), target=amsc.Target(macs=0.5), settings=settings
    )
    record = result.record
    print(f"{record.score_name}: {record.score_before:.3f} -> {record.score_after:.3f} (test)")
    print(f"MACs: {record.after.macs / record.before.macs:.1%}, parameters: {record.after.parameters:,}")
    print(f"blocks gone: {', '.join(record.removed_blocks) or 'none'}")
    return result


if __name__ == "__main__":
    main()
