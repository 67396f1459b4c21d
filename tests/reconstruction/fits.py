"""Networks and cuts for the tests of reconstruction, all in double precision."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import amsc
from amsc.surgery import CutPlan


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """The network with weights of this seed, in double precision and eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build().double().eval()


def batches(*shape: int, count: int = 5) -> list[Tensor]:
    return [drawn(*shape, seed=seed) for seed in range(1, count + 1)]


def plan_of_nothing(model: nn.Module, inputs: Any) -> CutPlan:
    return amsc.plan_cut(amsc.trace(model, inputs))


def without(model: nn.Module, inputs: Any, group: str, channels: Sequence[int]) -> nn.Module:
    return amsc.cut(model, amsc.plan_cut(amsc.trace(model, inputs), channels={group: channels}), inputs)


def largest_difference(one: nn.Module, other: nn.Module, inputs: Any) -> float:
    """Between outputs, relative to the largest."""
    with torch.no_grad():
        a, b = one(inputs), other(inputs)
    return float((a - b).abs().max() / a.abs().max())


class Block(nn.Module):
    """x + bn2(conv2(act(bn1(conv1(x))))), its BatchNorms with statistics of their own."""

    def __init__(self, width: int = 6, inner: int = 5, *, act: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, inner, 3, padding=1, bias=False)
        self.bn1, self.act = nn.BatchNorm2d(inner), act()
        self.conv2 = nn.Conv2d(inner, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))
        return x + y


class Residual(nn.Module):
    """A stem, some blocks and a classifier."""

    def __init__(self, *acts: type[nn.Module], width: int = 6, inner: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(width, inner, act=act) for act in acts))
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).relu().mean((2, 3)))


def with_statistics(model: nn.Module, data: Sequence[Tensor]) -> nn.Module:
    """The model with BatchNorms as training leaves them, and scales and shifts that are not neutral."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for number, norm in enumerate(norms):
        norm.momentum = None
        with torch.no_grad():
            norm.weight.copy_(1 + 0.3 * drawn(len(norm.weight), seed=number))
            norm.bias.copy_(0.3 * drawn(len(norm.bias), seed=100 + number))
    model.train()
    with torch.no_grad():
        for batch in data:
            model(batch)
    return model.eval()


class Encoder(nn.Module):
    """A pre-norm transformer with torch's own attention, over sequences of `width` numbers."""

    def __init__(self, width: int = 8, heads: int = 4, hidden: int = 12, depth: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleDict(self._layer(width, heads, hidden)) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 3)

    @staticmethod
    def _layer(width: int, heads: int, hidden: int) -> dict[str, nn.Module]:
        return {
            "norm1": nn.LayerNorm(width),
            "attention": nn.MultiheadAttention(width, heads, batch_first=True),
            "norm2": nn.LayerNorm(width),
            "up": nn.Linear(width, hidden),
            "down": nn.Linear(hidden, width),
        }

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            y = layer["norm1"](x)
            x = layer["attention"](y, y, y, need_weights=False)[0].add_(x)
            x = x + layer["down"](torch.relu(layer["up"](layer["norm2"](x))))
        return self.head(self.norm(x).mean(1))
