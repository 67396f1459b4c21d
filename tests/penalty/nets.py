"""Small networks for the tests of the penalty, with their structures typed by hand."""

import torch
from torch import Tensor, nn

from amsc.borrowing import InputSpec
from amsc.structure import Block, ChannelGroup, LayerCost, Member, Structure


class Residual(nn.Module):
    """x + bn2(conv2(relu(bn1(conv1(x))))), without the normalisations if `is_normalised` is false."""

    def __init__(self, width: int, inner: int, is_normalised: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, inner, 3, padding=1, bias=not is_normalised)
        self.bn1 = nn.BatchNorm2d(inner) if is_normalised else nn.Identity()
        self.conv2 = nn.Conv2d(inner, width, 3, padding=1, bias=not is_normalised)
        self.bn2 = nn.BatchNorm2d(width) if is_normalised else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))


class Net(nn.Module):
    """Stem, a residual block, an inner convolution, a head: channels `mid` lie outside the block, `inner` in it."""

    def __init__(self, is_normalised: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.block = Residual(4, 5, is_normalised)
        self.mid = nn.Conv2d(4, 6, 1, bias=not is_normalised)
        self.bn = nn.BatchNorm2d(6) if is_normalised else nn.Identity()
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.stem(x))
        return self.head(self.bn(self.mid(x)).relu().mean((2, 3)))


def randomized(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in eval mode with every tensor drawn at random, running variances positive."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point():
                draw = torch.randn(tensor.shape, generator=generator)
                tensor.copy_(draw.abs() + 0.5 if name.endswith("running_var") else draw)
    return model.eval()


def images() -> Tensor:
    return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def member(parameter: str, size: int, role: str, axis: int = 0) -> Member:
    return Member(parameter, axis, tuple((c,) for c in range(size)), role)


def layer(name: str, size: int, norm: str | None) -> tuple[Member, ...]:
    """Convolution `name` with `size` outputs and its bias, or the normalisation `norm` after it."""
    if norm is None:
        return (member(f"{name}.weight", size, "out"), member(f"{name}.bias", size, "out"))
    roles = {"weight": "affine", "bias": "affine", "running_mean": "statistic", "running_var": "statistic"}
    return (
        member(f"{name}.weight", size, "out"),
        *(member(f"{norm}.{key}", size, role) for key, role in roles.items()),
    )


def net_structure(is_normalised: bool = True) -> Structure:
    """What tracing `Net` on `images()` should yield, as far as the penalty looks at it."""

    def norm(name: str) -> str | None:
        return name if is_normalised else None

    inner = (*layer("block.conv1", 5, norm("block.bn1")), member("block.conv2.weight", 5, "in", 1))
    mid = (*layer("mid", 6, norm("bn")), member("head.weight", 6, "in", 1))
    stream = (
        *layer("stem", 4, None),
        member("block.conv1.weight", 4, "in", 1),
        *layer("block.conv2", 4, norm("block.bn2")),
        member("mid.weight", 4, "in", 1),
    )
    groups = (
        ChannelGroup("stream", "stream", 4, True, stream),
        ChannelGroup("inner", "filter", 5, True, inner),
        ChannelGroup("mid", "filter", 6, True, mid),
    )
    costs = (("stem", 72), ("block.conv1", 72), ("block.conv2", 72), ("mid", 72), ("head", 2))
    return structure_of(Net(is_normalised), groups, ("block",), costs)


def every_axis(name: str, tensors: dict[str, Tensor]) -> tuple[tuple[str, int], ...]:
    return tuple((name, axis) for axis in range(tensors[name].ndim))


def structure_of(
    model: nn.Module,
    groups: tuple[ChannelGroup, ...],
    blocks: tuple[str, ...] = (),
    costs: tuple[tuple[str, int], ...] = (),
) -> Structure:
    """A structure with these groups and blocks; each cost is a module and its number of output positions."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    inside = {b: tuple(n for n, _ in model.named_parameters() if n.startswith(f"{b}.")) for b in blocks}
    positions = dict(costs)
    macs = {b: sum(positions.get(n.removesuffix(".weight"), 0) * tensors[n].numel() for n in inside[b]) for b in blocks}
    return Structure(
        inputs=InputSpec.of(torch.zeros(1)),
        shapes={name: tuple(tensor.shape) for name, tensor in tensors.items()},
        buffers=tuple(name for name, _ in model.named_buffers()),
        channels=groups,
        blocks=tuple(Block(b, inside[b], macs[b]) for b in blocks),
        costs=tuple(LayerCost(name, count, every_axis(f"{name}.weight", tensors)) for name, count in costs),
        pins=(),
    )
