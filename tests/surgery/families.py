"""Small networks of five families, written out by hand: ResNet, DenseNet, MobileNet, image and text transformers."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["FAMILIES"]


def unit(c: int, out: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(c, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU6())


class Basic(nn.Module):
    """ResNet's block, its shortcut a convolution where the shape changes."""

    def __init__(self, c: int, out: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(unit(c, out, 3, stride), nn.Conv2d(out, out, 3, padding=1), nn.BatchNorm2d(out))
        changes = c != out or stride > 1
        self.shortcut = nn.Sequential(nn.Conv2d(c, out, 1, stride), nn.BatchNorm2d(out)) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.branch(x) + self.shortcut(x))


class DenseLayer(nn.Module):
    """DenseNet's layer: what it makes is added to its input as channels."""

    def __init__(self, c: int, growth: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, 4 * growth, 1, bias=False))
        self.wide = nn.Sequential(nn.BatchNorm2d(4 * growth), nn.ReLU(), nn.Conv2d(4 * growth, growth, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, self.wide(self.layer(x))), 1)


class Inverted(nn.Module):
    """MobileNet's block with squeeze and excitation."""

    def __init__(self, c: int, hidden: int) -> None:
        super().__init__()
        self.expand, self.depth = unit(c, hidden, 1), unit(hidden, hidden, 3, groups=hidden)
        self.squeeze, self.excite = nn.Conv2d(hidden, 4, 1), nn.Conv2d(4, hidden, 1)
        self.project, self.bn = nn.Conv2d(hidden, c, 1, bias=False), nn.BatchNorm2d(c)

    def forward(self, x: Tensor) -> Tensor:
        y = self.depth(self.expand(x))
        gate = F.hardsigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        return x + self.bn(self.project(y * gate))


class Attention(nn.Module):
    """Heads by reshapes, as people write them; the number of heads is stored, the width follows the weights."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.out, self.heads, self.causal = nn.Linear(width, width), heads, causal

    def forward(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        q, k, v = (part(x).view(n, length, self.heads, -1).transpose(1, 2) for part in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(mixed.transpose(1, 2).reshape(n, length, -1))


class Layer(nn.Module):
    """Attention and a feed-forward part, normalised before each."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads, causal)
        self.norm2, self.mlp = nn.LayerNorm(width), FeedForward(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))


class VisionTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 16) * 0.1)
        self.place = nn.Parameter(torch.randn(1, 17, 16) * 0.1)
        self.layers = nn.Sequential(*(Layer(16, 4, False) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(len(x), -1, -1), x), 1) + self.place
        return self.head(self.norm(self.layers(x))[:, 0])


class Decoder(nn.Module):
    """GPT: its head is the embedding."""

    def __init__(self, words: int = 23, width: int = 16, length: int = 12) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(length, width)
        self.layers = nn.Sequential(*(Layer(width, 4, True) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, words, bias=False)
        self.head.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device))
        return self.head(self.norm(self.layers(x)))


def on_images(body: Callable[[], nn.Module], width: int) -> Callable[[], tuple[nn.Module, Any]]:
    def build() -> tuple[nn.Module, Any]:
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5))
        return nn.Sequential(unit(3, 8), body(), head), torch.randn(4, 3, 16, 16)

    return build


def dense_net() -> nn.Module:
    between = nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1), nn.AvgPool2d(2))
    return nn.Sequential(DenseLayer(8, 4), DenseLayer(12, 4), between, DenseLayer(8, 4), unit(12, 12))


FAMILIES: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "ResNet": on_images(lambda: nn.Sequential(Basic(8, 8, 1), Basic(8, 16, 2), Basic(16, 16, 1)), 16),
    "DenseNet": on_images(dense_net, 12),
    "MobileNet": on_images(lambda: nn.Sequential(Inverted(8, 24), unit(8, 12, 1), Inverted(12, 36)), 12),
    "vision transformer": lambda: (VisionTransformer(), torch.randn(4, 3, 16, 16)),
    "decoder": lambda: (Decoder(), torch.randint(0, 23, (2, 12))),
}
