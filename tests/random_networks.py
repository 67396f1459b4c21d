"""Random networks from a list of small numbers: awkward constructs, one after the other, of convolutions here and of
attention in `random_transformers`.

`random_network(genes)` builds the same network from the same integers. The tests draw some dozens from seeds and
`benchmarks/surgery/bench_random_networks.py` many more; a list of integers can also be shrunk by hand.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from amsc.structure import Structure
from random_constructs import CONSTRUCTS
from random_transformers import TRANSFORMER_STAGES, Apply, LinearAttention

SIZE = 8  # height and width of the input


class Genes:
    """A stream of choices read from a list of integers (0 once it is used up)."""

    def __init__(self, values: list[int]) -> None:
        self._values: Iterator[int] = iter(values)

    def below(self, limit: int) -> int:
        return next(self._values, 0) % limit

    def pick(self, *choices: Any) -> Any:
        return choices[self.below(len(choices))]


def activation(genes: Genes, channels: int) -> nn.Module:
    return genes.pick(
        nn.ReLU(), nn.ReLU(inplace=True), nn.SiLU(), nn.GELU(), nn.Hardswish(), nn.LeakyReLU(0.1), nn.Tanh(),
        nn.PReLU(channels), nn.PReLU(), nn.ELU(), nn.ReLU6(), nn.Identity(),
    )  # fmt: skip


def norm(genes: Genes, channels: int) -> nn.Module:
    return genes.pick(
        nn.BatchNorm2d(channels), nn.BatchNorm2d(channels), nn.GroupNorm(channels // 2, channels),
        nn.GroupNorm(2, channels), nn.InstanceNorm2d(channels, affine=True), nn.Identity(),
    )  # fmt: skip


def conv_unit(genes: Genes, channels: int, out: int, stride: int = 1) -> nn.Sequential:
    kernel = genes.pick(3, 1, 3)
    conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=genes.pick(True, False))
    return nn.Sequential(conv, norm(genes, out), activation(genes, out))


def plain(genes: Genes, c: int) -> tuple[nn.Module, int]:
    out = genes.pick(8, 4, 12)
    return conv_unit(genes, c, out), out


def residual(genes: Genes, c: int) -> tuple[nn.Module, int]:
    inner = genes.pick(c + c % 2, 4, 6)
    branch = nn.Sequential(conv_unit(genes, c, inner), nn.Conv2d(inner, c, 3, padding=1), nn.BatchNorm2d(c))
    last = genes.pick(nn.ReLU(), nn.Identity())
    in_place = genes.pick(False, True)

    def run(self: Any, x: Tensor) -> Tensor:
        y = self.branch(x)
        if in_place:
            y += x
            return self.last(y)
        return self.last(x + y)

    return nn.Sequential(nn.ReLU(), Apply(run, branch=branch, last=last)), c


def projected(genes: Genes, c: int) -> tuple[nn.Module, int]:
    out = genes.pick(8, 6, 12)
    parts = {"branch": conv_unit(genes, c, out), "shortcut": nn.Conv2d(c, out, 1)}
    return Apply(lambda self, x: F.relu(self.branch(x) + self.shortcut(x)), **parts), out


def preactivated(genes: Genes, c: int) -> tuple[nn.Module, int]:
    branch = nn.Sequential(nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, c, 1))
    return Apply(lambda self, x: x + self.branch(x), branch=branch), c


def concatenated(genes: Genes, c: int) -> tuple[nn.Module, int]:
    keeps_input = genes.pick(False, True)
    parts = {"left": conv_unit(genes, c, 4), "right": conv_unit(genes, c, 6)}

    def run(self: Any, x: Tensor) -> Tensor:
        branches = [self.left(x), self.right(x)]
        return torch.cat([x, *branches] if keeps_input else branches, dim=1)

    return Apply(run, **parts), 10 + c * keeps_input


def dense_layer(genes: Genes, c: int) -> tuple[nn.Module, int]:
    layer = nn.Sequential(nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, 4, 3, padding=1, bias=False))
    return Apply(lambda self, x: torch.cat((x, self.layer(x)), 1), layer=layer), c + 4


def gated(genes: Genes, c: int) -> tuple[nn.Module, int]:
    """Squeeze-excite, with convolutions or linear layers."""
    gate = genes.pick(nn.Sigmoid(), nn.Hardsigmoid(), nn.Tanh())
    if genes.pick(True, False):
        squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, 4, 1), nn.ReLU(), nn.Conv2d(4, c, 1), gate)
        return Apply(lambda self, x: x * self.squeeze(x), squeeze=squeeze), c
    mlp = nn.Sequential(nn.Linear(c, 4), nn.ReLU(), nn.Linear(4, c), gate)
    return Apply(lambda self, x: x * self.mlp(x.mean((2, 3)))[:, :, None, None], mlp=mlp), c


def depthwise(genes: Genes, c: int) -> tuple[nn.Module, int]:
    out = c * genes.pick(1, 2)
    return nn.Sequential(
        nn.Conv2d(c, out, 3, padding=1, groups=c), nn.BatchNorm2d(out), nn.ReLU6(), conv_unit(genes, out, 8)
    ), 8


def grouped(genes: Genes, c: int) -> tuple[nn.Module, int]:
    out = genes.pick(12, 24)
    conv = nn.Conv2d(12, out, 3, padding=1, groups=genes.pick(4, 3, 2))
    return nn.Sequential(conv_unit(genes, c, 12), conv, nn.ReLU()), out


def shuffled_pixels(genes: Genes, c: int) -> tuple[nn.Module, int]:
    up = nn.Sequential(nn.Conv2d(c, 16, 3, padding=1), nn.PixelShuffle(2), nn.ReLU())
    return nn.Sequential(up, nn.AvgPool2d(2)) if genes.pick(True, False) else nn.Sequential(up, nn.MaxPool2d(2)), 4


def unshuffled_pixels(genes: Genes, c: int) -> tuple[nn.Module, int]:
    return nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * c, 8, 3, padding=1), nn.Upsample(scale_factor=2)), 8


def shared(genes: Genes, c: int) -> tuple[nn.Module, int]:
    """One module used twice, in a row or side by side."""
    unit = nn.Sequential(nn.Conv2d(c, c, 3, padding=1), nn.BatchNorm2d(c), nn.ReLU())
    if genes.pick(True, False):
        return Apply(lambda self, x: self.unit(self.unit(x)), unit=unit), c
    return Apply(lambda self, x: self.unit(x) + self.unit(x.flip(3)), unit=unit), c


def transposed(genes: Genes, c: int) -> tuple[nn.Module, int]:
    groups = genes.pick(1, 1, 2)
    up = nn.ConvTranspose2d(12, 8, 2, stride=2, groups=groups)
    return nn.Sequential(conv_unit(genes, c, 12), up, nn.ReLU(), nn.MaxPool2d(2)), 8


def scaled(genes: Genes, c: int) -> tuple[nn.Module, int]:
    """A parameter used element-wise, outside any layer."""
    if genes.pick(True, False):
        return Apply(lambda self, x: x * self.scale, scale=nn.Parameter(torch.randn(c, 1, 1))), c
    return Apply(lambda self, x: x * self.scale.view(1, -1, 1, 1), scale=nn.Parameter(torch.randn(c))), c


def shifted(genes: Genes, c: int) -> tuple[nn.Module, int]:
    return Apply(lambda self, x: x + self.shift, shift=nn.Parameter(torch.randn(1, c, SIZE, SIZE))), c


def channel_padded(genes: Genes, c: int) -> tuple[nn.Module, int]:
    """The parameter-free shortcut of CIFAR ResNets."""
    unit = nn.Sequential(nn.Conv2d(c, c + 4, 3, padding=1), nn.BatchNorm2d(c + 4))
    return Apply(lambda self, x: F.relu(self.unit(x) + F.pad(x, (0, 0, 0, 0, 2, 2))), unit=unit), c + 4


def functional(genes: Genes, c: int) -> tuple[nn.Module, int]:
    """A convolution whose weight is a bare parameter."""
    weight = nn.Parameter(torch.randn(8, c, 3, 3) * 0.2)
    return Apply(lambda self, x: F.relu(F.conv2d(F.pad(x, (1, 1, 1, 1)), self.weight)), weight=weight), 8


def multiplied(genes: Genes, c: int) -> tuple[nn.Module, int]:
    parts = {"left": conv_unit(genes, c, 8), "right": conv_unit(genes, c, 8)}
    return Apply(lambda self, x: self.left(x) * self.right(x), **parts), 8


def spatially_gated(genes: Genes, c: int) -> tuple[nn.Module, int]:
    return Apply(lambda self, x: x * torch.sigmoid(self.gate(x)), gate=nn.Conv2d(c, 1, 3, padding=1)), c


def channels_last(genes: Genes, c: int) -> tuple[nn.Module, int]:
    """A linear layer over the channels of an NHWC view, and back."""
    linear = nn.Sequential(nn.Linear(c, 8, bias=genes.pick(True, False)), nn.ReLU())
    return Apply(lambda self, x: self.linear(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), linear=linear), 8


def written(genes: Genes, c: int) -> tuple[nn.Module, int]:
    """Slices assigned into a buffer made in forward."""

    def run(self: Any, x: Tensor) -> Tensor:
        wide = torch.zeros(x.shape[0], c + 3, *x.shape[2:])
        wide[:, 1 : c + 1] = self.conv(x)
        return wide

    return Apply(run, conv=nn.Conv2d(c, c, 1)), c + 3


def sliced(genes: Genes, c: int) -> tuple[nn.Module, int]:
    conv = nn.Conv2d(c, 8, 3, padding=1)
    take = genes.pick(
        lambda x: x[:, :6], lambda x: torch.cat(x.chunk(2, 1)[::-1], 1)[:, :6], lambda x: x[:, [5, 0, 1, 3, 2, 4]],
        lambda x: F.channel_shuffle(x, 2)[:, 2:],
        lambda x: x.view(x.shape[0], 2, 4, *x.shape[2:]).sum(1)[:, :2].repeat(1, 3, 1, 1),
        lambda x: x.roll(3, 1)[:, :6],
    )  # fmt: skip
    return Apply(lambda self, x: F.relu(take(self.conv(x))), conv=conv), 6


def mirrored(genes: Genes, c: int) -> tuple[nn.Module, int]:
    how = genes.pick(
        lambda x: x.flip(1), lambda x: x.flip(2), lambda x: x.repeat(1, 2, 1, 1)[:, :c], lambda x: x.roll(1, 2)
    )
    return Apply(lambda self, x: how(x)), c


def resized(genes: Genes, c: int) -> tuple[nn.Module, int]:
    return genes.pick(
        nn.Sequential(nn.AvgPool2d(2), nn.Upsample(scale_factor=2, mode="bilinear")),
        nn.MaxPool2d(3, 1, 1), nn.Sequential(nn.ReflectionPad2d(1), nn.AvgPool2d(3, 1)), nn.ZeroPad2d((1, -1, 0, 0)),
        nn.Sequential(nn.ConstantPad2d(1, 0.5), nn.MaxPool2d(3, 1)), nn.Dropout2d(0.5), nn.LocalResponseNorm(3),
        nn.Softmax2d(), nn.Sigmoid(),
    ), c  # fmt: skip


CONVOLUTIONAL = (
    plain, residual, projected, preactivated, concatenated, dense_layer, gated, depthwise, grouped, shuffled_pixels,
    unshuffled_pixels, shared, transposed, scaled, shifted, channel_padded, functional, multiplied, spatially_gated,
    channels_last, written, sliced, mirrored, resized,
)  # fmt: skip
FIRST_STAGES = (*CONVOLUTIONAL, *TRANSFORMER_STAGES)  # to which the numbers of networks in tests refer
STAGES = (*FIRST_STAGES, *CONSTRUCTS)


def head(genes: Genes, c: int) -> nn.Module:
    small = c * 16
    return genes.pick(
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 5)),
        nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(small, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 5)),
        nn.Sequential(nn.AvgPool2d(2), Apply(lambda self, x: x.permute(0, 2, 3, 1).flatten(1)), nn.Linear(small, 5)),
        nn.Sequential(
            Apply(lambda self, x: torch.cat((x.mean((2, 3)), x.amax((2, 3)), x[:, :, ::2, ::2].flatten(1)), 1)),
            nn.Linear(2 * c + small, 5),
        ),
        nn.Conv2d(c, 3, 1),
    )


def random_network(values: list[int], kinds: tuple[Any, ...] = STAGES) -> nn.Module:
    """A network of one to five stages and a head for inputs of shape (n, 3, SIZE, SIZE), in eval mode, its
    normalisations with random statistics, scales and shifts."""
    genes = Genes(values)
    stages: list[nn.Module] = []
    first = genes.pick(8, 6, 10)
    stages.append(conv_unit(genes, 3, first))
    channels = first
    for _ in range(1 + genes.below(4)):
        stage, channels = kinds[genes.below(len(kinds))](genes, channels)
        stages.append(stage)
    network = nn.Sequential(*stages, head(genes, channels)).eval()
    generator = torch.Generator().manual_seed(genes.below(1000))
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, _BatchNorm | nn.GroupNorm | nn.LayerNorm | _InstanceNorm):
                module.weight.copy_(torch.rand(module.weight.shape, generator=generator) + 0.5)
                module.bias.copy_(torch.randn(module.bias.shape, generator=generator) * 0.3)
            if isinstance(module, _BatchNorm):
                module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=generator) * 0.3)
                module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
    return network


def costs_are_exact(network: nn.Module, structure: Structure, channels: Mapping[str, Sequence[int]]) -> bool:
    """Whether a plan knows what is left of the multiply-adds when `channels` go. It is told too many of linear
    attention, whose products cost heads times the square of the head size, and of an einsum over one feature, which
    torch computes element by element, so that they are not counted."""
    kinds = {name: structure.group(name) for name in channels}
    has_single = any(g.kind == "head_dim" and g.size - len(channels[name]) == 1 for name, g in kinds.items())
    has_einsum = any(getattr(module, "product", "") == "sum" for module in network.modules())
    is_linear = any(isinstance(module, LinearAttention) for module in network.modules())
    return not (is_linear or (has_einsum and has_single))


def genes_of(seed: int) -> list[int]:
    """A hundred random choices from a seed."""
    chooser = random.Random(seed)
    return [chooser.randrange(10_000) for _ in range(100)]
