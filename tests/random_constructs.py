"""Stages for random networks of what stands beside channels: constants joined to them, weights computed from
parameters, frozen normalisations, groups whose channels are shuffled."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from random_transformers import Apply

__all__ = ["CONSTRUCTS", "FrozenNorm", "GroupedUnit", "shuffled"]

Stage = tuple[nn.Module, int]


class FrozenNorm(nn.Module):
    """A BatchNorm2d whose statistics, scale and shift are buffers, as detectors have it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name, value in (("weight", 1.3), ("bias", 0.4), ("running_mean", -0.2), ("running_var", 0.8)):
            self.register_buffer(name, value + 0.2 * torch.rand(channels))

    def forward(self, x: Tensor) -> Tensor:
        weight, bias, mean, variance = (
            getattr(self, name).reshape(1, -1, 1, 1) for name in ("weight", "bias", "running_mean", "running_var")
        )
        scale = weight * (variance + 1e-5).rsqrt()
        return x * scale + (bias - mean * scale)


def _shift_in_buffer(x: Tensor) -> Tensor:
    wide = x.new_zeros(*x.shape[:3], x.shape[3] + 1)
    wide[..., 1:] = x
    return wide[..., :-1]


def constants_joined(genes: Any, c: int) -> Stage:
    """Zeros or ones beside the channels, along other axes than theirs."""
    how = genes.pick(
        lambda x: torch.cat([x.new_zeros(*x.shape[:3], 1), x[..., :-1]], 3),
        lambda x: torch.cat([x[:, :, 1:], torch.zeros_like(x[:, :, :1])], 2),
        lambda x: torch.cat([x.new_ones(*x.shape[:3], 1), x[..., :-1]], 3),
        lambda x: torch.stack([x, x.new_zeros(x.shape)], 2).flatten(2, 3)[:, :, :8],
        lambda x: F.pad(x, (1, 0, 1, 1), mode="circular")[..., :8, :8],
        _shift_in_buffer,
        lambda x: x + x.new_zeros(x.shape),
    )
    return Apply(lambda self, x: F.relu(how(self.conv(x))), conv=nn.Conv2d(c, 8, 3, padding=1)), 8


def gated_linear(genes: Any, c: int) -> Stage:
    """A gated linear unit over the channels, or over the width."""
    if genes.pick(True, False):
        return Apply(lambda self, x: F.glu(self.conv(x), 1), conv=nn.Conv2d(c, 12, 3, padding=1)), 6
    conv = nn.Conv2d(c, 8, 3, padding=1)
    return Apply(lambda self, x: F.interpolate(F.glu(self.conv(x), 3), (8, 8)), conv=conv), 8


def _convolution(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(x, weight, padding=1)


def _columns(x: Tensor, weight: Tensor) -> Tensor:
    return (weight.flatten(1) @ F.unfold(x, 3, padding=1)).unflatten(2, x.shape[2:])


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    return F.linear(x.permute(0, 2, 3, 1), weight.view(weight.shape[0], -1)).permute(0, 3, 1, 2)


def computed_weight(genes: Any, c: int) -> Stage:
    """A convolution whose weight is computed from a parameter, number by number or otherwise, or reshaped."""
    how: Callable[[Any, Tensor], Tensor] = genes.pick(
        lambda self, w: w * 0.1,
        lambda self, w: w / 2.0,
        lambda self, w: w * self.gain,
        lambda self, w: w + 0.1,
        lambda self, w: 0.2 - w,
        lambda self, w: torch.tanh(w),
        lambda self, w: w * self.gain.exp() - 0.0,
        lambda self, w: w - w.mean(),
        lambda self, w: w / w.norm(),
    )
    size, layer = genes.pick((3, _convolution), (1, _linear), (3, _columns))
    weight = nn.Parameter(torch.randn(8, c, size, size) * 0.2)

    def run(self: Any, x: Tensor) -> Tensor:
        return F.relu(layer(x, how(self, self.weight)))

    return Apply(run, weight=weight, gain=nn.Parameter(torch.tensor(0.7))), 8


def frozen(genes: Any, c: int) -> Stage:
    """A residual branch with frozen normalisations."""
    branch = nn.Sequential(
        nn.Conv2d(c, 6, 3, padding=1, bias=False), FrozenNorm(6), nn.ReLU(),
        nn.Conv2d(6, c, 3, padding=1, bias=False), FrozenNorm(c),
    )  # fmt: skip
    return nn.Sequential(nn.ReLU(), Apply(lambda self, x: F.relu(x + self.branch(x)), branch=branch)), c


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Channels of `groups` groups take turns, as ShuffleNet writes it."""
    batch, channels, height, width = x.shape
    x = x.view(batch, groups, channels // groups, height, width)
    return x.transpose(1, 2).contiguous().view(batch, channels, height, width)


class GroupedUnit(nn.Module):
    """Convolutions with groups around a shuffle, as a residual branch or beside their input."""

    def __init__(self, c: int, middle: int, out: int, groups: int, *, adds: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(c, middle, 1, groups=groups), nn.Conv2d(middle, out, 1, groups=groups)
        self.norm, self.deep = nn.BatchNorm2d(middle), nn.Conv2d(middle, middle, 3, padding=1, groups=middle)
        self.groups, self.adds = groups, adds

    def forward(self, x: Tensor) -> Tensor:
        y = self.last(self.deep(shuffled(F.relu(self.norm(self.first(x))), self.groups)))
        return F.relu(x + y if self.adds else torch.cat((y, x), 1))


def grouped_and_shuffled(genes: Any, c: int) -> Stage:
    """One or two grouped units."""
    groups, middle = genes.pick((2, 8), (2, 12), (3, 18), (4, 16), (3, 12), (2, 6))
    width = 24
    units: list[nn.Module] = [nn.Conv2d(c, width, 1), GroupedUnit(width, middle, width, groups, adds=True)]
    if genes.pick(True, False):
        units.append(GroupedUnit(width, middle, 12, groups, adds=False))
        width += 12
    return nn.Sequential(*units), width


CONSTRUCTS = (constants_joined, gated_linear, computed_weight, frozen, grouped_and_shuffled)
