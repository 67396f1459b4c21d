"""Small networks whose layers make new channels: as torchvision, timm and the CIFAR networks write them."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, GROWTH = 8, 4


class Layer(nn.Module):
    """BN, ReLU, 1x1, BN, ReLU, 3x3 of all the channels so far: the new ones alone."""

    def __init__(self, channels: int, growth: int = GROWTH) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(channels), nn.Conv2d(channels, 6, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(6), nn.Conv2d(6, growth, 3, padding=1, bias=False)

    def new(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))

    def forward(self, x: Tensor) -> Tensor:
        return self.new(x)


class Listing(Layer):
    """The same from a list of all tensors so far, as in torchvision."""

    def forward(self, features: list[Tensor]) -> Tensor:
        return self.new(torch.cat(features, 1))


class Widening(Layer):
    """The same, which concatenates by itself."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, self.new(x)), 1)


class Single(nn.Module):
    """A convolution and what follows it, as a branch of an Inception module has them."""

    def __init__(self, channels: int, growth: int = GROWTH, size: int = 3) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, growth, size, padding=size // 2), nn.BatchNorm2d(growth)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class Stage(nn.Module):
    """Layers of one kind, each of which reads what all before it made."""

    def __init__(self, kind: str, num_layers: int, channels: int) -> None:
        super().__init__()
        self.kind = kind
        build = {"list": Listing, "tensor": Layer, "cat": Widening}[kind]
        self.layers = nn.ModuleList([build(channels + index * GROWTH) for index in range(num_layers)])
        self.channels = channels + num_layers * GROWTH

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "cat":
            for layer in self.layers:
                x = layer(x)
            return x
        features = [x]
        for layer in self.layers:
            features.append(layer(features if self.kind == "list" else torch.cat(features, 1)))
        return torch.cat(features, 1)


class DenseNet(nn.Module):
    """Two stages, with a transition between them and behind them."""

    def __init__(self, kind: str, num_layers: int = 3, *, normalised: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.stage1 = Stage(kind, num_layers, WIDTH)
        self.norm1 = nn.BatchNorm2d(self.stage1.channels) if normalised else nn.Identity()
        self.transition = nn.Conv2d(self.stage1.channels, 10, 1)
        self.stage2 = Stage(kind, num_layers, 10)
        self.norm2 = nn.BatchNorm2d(self.stage2.channels) if normalised else nn.Identity()
        self.head = nn.Linear(self.stage2.channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(self.transition(F.relu(self.norm1(self.stage1(self.stem(x))))), 2)
        return self.head(F.relu(self.norm2(self.stage2(x))).mean((2, 3)))


class Inception(nn.Module):
    """Branches of different kernels beside each other, `joined` to one tensor that `last` reads."""

    def __init__(
        self, joined: Callable[[Sequence[Tensor]], Tensor] = lambda parts: torch.cat(list(parts), 1), width: int = 12
    ) -> None:
        super().__init__()
        self.joined = joined
        self.stem = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.branches = nn.ModuleList(Single(WIDTH, GROWTH, size) for size in (1, 3, 5))
        self.last = nn.Conv2d(width, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.last(self.joined([branch(x) for branch in self.branches]))


def images() -> Tensor:
    return torch.rand(2, 3, 8, 8)


def randomized(model: nn.Module) -> nn.Module:
    """With weights and statistics that are not the initial ones, in eval mode."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in ((module.weight, 0.5), (module.bias, -0.5), (module.running_mean, -0.5)):
                assert tensor is not None
                nn.init.uniform_(tensor, low, low + 1)
            assert module.running_var is not None
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()
