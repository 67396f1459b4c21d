"""A network that is small enough to price by hand, its data, and what it makes of them, written out."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from amsc.criteria import Scene
from amsc.structure import trace
from amsc.tasks import Classification
from training.small import ListData

TASK = Classification()
SIZE = 5
"""Height and width of all maps but the last."""


class Block(nn.Module):
    """relu(x + bn2(conv2(relu(bn1(conv1(x)))))), with `inner` channels between the two."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, inner, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x))))))


class Net(nn.Module):
    """Two residual blocks on a stream of four channels; the groups are "first.conv1" and "second.conv1", and the
    stream."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.first, self.second = Block(4, 5), Block(4, 3)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn(self.stem(x)))
        return self.fc(self.second(self.first(x)).mean((2, 3)))


def net(seed: int = 0) -> Net:
    """With weights, scales and statistics that are all different."""
    torch.manual_seed(seed)
    made = Net().eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            module.running_mean.copy_(0.3 * torch.randn(len(module.weight)))
            module.running_var.copy_(0.5 + torch.rand(len(module.weight)))
    return made


def data(*, batches: int = 3, size: int = 8) -> ListData:
    generator = torch.Generator().manual_seed(1)
    items = [
        (torch.randn(size, 2, SIZE, SIZE, generator=generator), torch.randint(0, 3, (size,), generator=generator))
        for _ in range(batches)
    ]
    return ListData(tuple(items))


DATA = data()


def scene(model: nn.Module | None = None, **options: Any) -> Scene:
    model = net() if model is None else model
    return Scene(model, trace(model, DATA.example_inputs()), DATA, TASK, **{"mapped": 24, **options})


@torch.no_grad()
def inner_maps(model: Net) -> tuple[Tensor, Tensor]:
    """What the last convolution of the first block reads, and what it returns, of all examples."""
    x = torch.cat([inputs for inputs, _ in DATA.items])
    x = functional.relu(model.bn(model.stem(x)))
    maps = functional.relu(model.first.bn1(model.first.conv1(x)))
    return maps, model.first.conv2(maps)


def gated_losses(model: Net, inputs: Tensor, target: Tensor, gates: Tensor) -> Tensor:
    """The loss of each example with gates on the five inner channels of the first block. Shape: example."""
    x = functional.relu(model.bn(model.stem(inputs)))
    inner = functional.relu(model.first.bn1(model.first.conv1(x)) * gates[:, None, None])
    x = functional.relu(x + model.first.bn2(model.first.conv2(inner)))
    return functional.cross_entropy(model.fc(model.second(x).mean((2, 3))), target, reduction="none")
