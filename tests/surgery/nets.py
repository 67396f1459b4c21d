"""Networks for the tests of surgery, one with its structure typed by hand."""

import torch
from torch import Tensor, nn

from amsc.borrowing import InputSpec
from amsc.structure.structure import Block, ChannelGroup, LayerCost, Member, Structure


class Residual(nn.Module):
    """x + bn2(conv2(relu(bn1(conv1(x)))))."""

    def __init__(self, width: int = 8, inner: int = 6) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, inner, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        return x + self.bn2(self.conv2(y))


class SmallNet(nn.Module):
    """Convolution, BatchNorm, one residual block in a Sequential, convolution with bias, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.body = nn.Sequential(Residual())
        self.conv2 = nn.Conv2d(8, 5, 1)
        self.fc = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(self.bn1(self.conv1(x)).relu())
        x = self.conv2(x).relu()
        return self.fc(x.mean((2, 3)))


def randomized(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model with every tensor drawn at random, running variances positive: nothing is neutral by accident."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point():
                draw = torch.randn(tensor.shape, generator=generator) * 0.5
                tensor.copy_(draw.abs() + 0.5 if name.endswith("running_var") else draw)
    return model


def images() -> Tensor:
    return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def member(parameter: str, axis: int, size: int, role: str) -> Member:
    return Member(parameter, axis, tuple((c,) for c in range(size)), role)


def batch_norm(name: str, size: int) -> tuple[Member, ...]:
    roles = {"weight": "affine", "bias": "affine", "running_mean": "statistic", "running_var": "statistic"}
    return tuple(member(f"{name}.{key}", 0, size, role) for key, role in roles.items())


def every_axis(name: str, tensors: dict[str, Tensor]) -> tuple[tuple[str, int], ...]:
    return tuple((name, axis) for axis in range(tensors[name].ndim))


def small_structure() -> Structure:
    """What tracing `SmallNet` on `images()` should yield, typed by hand."""
    net, block = SmallNet(), "body.0"
    stream = (
        member("conv1.weight", 0, 8, "out"),
        *batch_norm("bn1", 8),
        member(f"{block}.conv1.weight", 1, 8, "in"),
        member(f"{block}.conv2.weight", 0, 8, "out"),
        *batch_norm(f"{block}.bn2", 8),
        member("conv2.weight", 1, 8, "in"),
    )
    inner = (
        member(f"{block}.conv1.weight", 0, 6, "out"),
        *batch_norm(f"{block}.bn1", 6),
        member(f"{block}.conv2.weight", 1, 6, "in"),
    )
    last = (member("conv2.weight", 0, 5, "out"), member("conv2.bias", 0, 5, "out"), member("fc.weight", 1, 5, "in"))
    pixels = 2 * 6 * 6
    costs = [(name, pixels) for name in ("conv1", f"{block}.conv1", f"{block}.conv2", "conv2")] + [("fc", 2)]
    tensors = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    return Structure(
        inputs=InputSpec.of(images()),
        shapes={name: tuple(tensor.shape) for name, tensor in tensors.items()},
        buffers=tuple(name for name, _ in net.named_buffers()),
        channels=(
            ChannelGroup("stream", "stream", 8, True, stream),
            ChannelGroup("inner", "filter", 6, True, inner),
            ChannelGroup("last", "filter", 5, True, last),
            ChannelGroup("odd", "stream", 4, False, (member("fc.weight", 0, 4, "out"),), reason="it is the output"),
        ),
        blocks=(Block(block, tuple(n for n, _ in net.named_parameters() if n.startswith(block)), 2 * 72 * 9 * 48),),
        costs=tuple(LayerCost(name, positions, every_axis(f"{name}.weight", tensors)) for name, positions in costs),
        pins=(),
    )
