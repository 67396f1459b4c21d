"""Small networks of one awkward construct each, and what a good tool does with them.

`FAULTS` holds every construct on which the best-known pruning library was measured to be wrong or to fail, and more of
the kind. Each network has a convolution or linear layer before the construct, so that there is something to remove.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from random_transformers import Apply as Net

__all__ = ["FAULTS", "Fault", "Net", "conv", "settled"]

Built = tuple[nn.Module, Any]


@dataclass(frozen=True)
class Fault:
    """`build(seed)` gives a network and one batch. `at`: the axes of parameters that the construct is about.
    `expect`: "cut", some channels there must be removable; "any", they may also be pinned or inexact, with the reason.
    `wrong`: what amsc does wrong today, if it does; `untold`: what it leaves today without a reason."""

    build: Callable[[int], Built]
    expect: Literal["cut", "any"]
    at: tuple[tuple[str, int], ...] = (("a.weight", 0),)
    wrong: str = ""
    untold: str = ""


def conv(c: int, out: int, kernel: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(c, out, kernel, padding=kernel // 2, **options)


def settled(model: nn.Module) -> nn.Module:
    """`model` in eval mode, its normalisations with random statistics, scales and shifts."""
    with torch.no_grad():
        for module in model.modules():
            if getattr(module, "running_mean", None) is not None:
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 1.5)
            if (
                isinstance(module, nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm)
                and module.bias is not None
            ):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
    return model.eval()


def images(width: int = 3, size: int = 8) -> Tensor:
    return torch.randn(4, width, size, size)


def between(middle: Callable[[Tensor], Tensor], width: int = 8, out: int = 8) -> Callable[[int], Built]:
    """Convolution and BatchNorm to `width` channels, `middle`, then two convolutions."""

    def build(seed: int) -> Built:
        torch.manual_seed(seed)
        parts = {"a": conv(3, width), "bn": nn.BatchNorm2d(width), "b": conv(out, 6), "head": conv(6, 2)}
        model = Net(lambda self, x: self.head(F.relu(self.b(middle(F.relu(self.bn(self.a(x))))))), **parts)
        return settled(model), images()

    return build


def around(make: Callable[[], nn.Module], width: int = 8, out: int = 8) -> Callable[[int], Built]:
    """Convolution and ReLU to `width` channels, the module `make()`, then two convolutions."""

    def build(seed: int) -> Built:
        torch.manual_seed(seed)
        parts = {"a": conv(3, width), "middle": make(), "b": conv(out, 6), "head": conv(6, 2)}
        model = Net(lambda self, x: self.head(F.relu(self.b(self.middle(F.relu(self.a(x)))))), **parts)
        return settled(model), images()

    return build


def flat(flatten: Callable[[Tensor], Tensor], size: int = 96, norm: bool = False) -> Callable[[int], Built]:
    """Convolution to 6 maps of 4 x 4, `flatten` to `size` numbers, a hidden linear layer, a head."""

    def build(seed: int) -> Built:
        torch.manual_seed(seed)
        fc = nn.Sequential(nn.BatchNorm1d(size) if norm else nn.Identity(), nn.Linear(size, 10), nn.ReLU())
        parts = {"a": conv(3, 6), "fc": fc, "head": nn.Linear(10, 4)}
        model = Net(lambda self, x: self.head(self.fc(flatten(F.avg_pool2d(F.relu(self.a(x)), 2)))), **parts)
        return settled(model), images()

    return build


def net(function: Callable[..., Any], inputs: Callable[[], Any] = images, **parts: Callable[[], Any]) -> Any:
    """A `Net` whose parts are made anew after the seed is set."""

    def build(seed: int) -> Built:
        torch.manual_seed(seed)
        return settled(Net(function, **{name: make() for name, make in parts.items()})), inputs()

    return build


def c(*sizes: int, **options: Any) -> Callable[[], nn.Conv2d]:
    return lambda: conv(*sizes, **options)


def lin(*sizes: int) -> Callable[[], nn.Linear]:
    return lambda: nn.Linear(*sizes)


def shuffled(x: Tensor) -> Tensor:
    """As ShuffleNet writes it."""
    n, width, h, w = x.shape
    return x.view(n, 2, width // 2, h, w).transpose(1, 2).contiguous().view(n, width, h, w)


def unequal(self: Any, x: Tensor) -> Tensor:
    """Two chunks of unlike fates."""
    left, right = F.relu(self.a(x)).chunk(2, 1)
    return self.head(F.relu(self.b(left)) + self.d(F.relu(self.c(right))))


def split_unequal(self: Any, x: Tensor) -> Tensor:
    left, right = F.relu(self.a(x)).split([2, 6], 1)
    return self.head(F.relu(self.b(left)) + self.c(right))


def half_passed(self: Any, x: Tensor) -> Tensor:
    """ShuffleNet's unit: one half goes through untouched, then both are shuffled."""
    left, right = F.relu(self.a(x)).chunk(2, 1)
    return self.head(F.channel_shuffle(torch.cat((left, F.relu(self.b(right))), 1), 2))


def windows(self: Any, x: Tensor) -> Tensor:
    """im2col and a linear layer."""
    return self.head(F.relu(self.b(F.unfold(F.relu(self.a(x)), 2, stride=2).transpose(1, 2))))


class OptionA(nn.Module):
    """A stage of the CIFAR ResNet of the paper: the shortcut drops pixels and pads channels."""

    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.a, self.bn_a = nn.Conv2d(width, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.b, self.bn_b = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.stride, self.added = stride, (out - width) // 2

    def forward(self, x: Tensor) -> Tensor:
        branch = self.bn_b(self.b(F.relu(self.bn_a(self.a(x)))))
        if self.added:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.added, self.added))
        return F.relu(branch + x)


def cifar_resnet(seed: int) -> Built:
    torch.manual_seed(seed)
    stages = [OptionA(8, 8, 1), OptionA(8, 16, 2), OptionA(16, 16, 1), OptionA(16, 32, 2)]
    stem = [nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    return settled(nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5))), images()


class Auxiliary(nn.Module):
    """GoogLeNet's second classifier, which runs in training mode only."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.head = conv(3, 8), conv(8, 6), nn.Linear(6, 4)
        self.bn, self.side, self.second = nn.BatchNorm2d(8), conv(8, 5, 1), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.bn(self.stem(x)))
        out = self.head(F.relu(self.body(x)).mean((2, 3)))
        return (out, self.second(F.relu(self.side(x)).mean((2, 3)))) if self.training else out


def auxiliary(seed: int) -> Built:
    torch.manual_seed(seed)
    return settled(Auxiliary()), images()


def sequences() -> Tensor:
    return torch.randn(4, 5, 3)


def recurrent(kind: Callable[..., nn.Module], out: int = 6, **options: Any) -> Any:
    """Linear layer, recurrent layer, linear layer, over a sequence."""
    return net(
        lambda self, x: self.head(F.relu(self.b(self.rnn(F.relu(self.a(x)))[0]))), sequences,
        a=lin(3, 8), rnn=lambda: kind(8, 6, batch_first=True, **options), b=lin(out, 7), head=lin(7, 2),
    )  # fmt: skip


class Doubled(nn.Module):
    """A parametrisation of one's own."""

    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def parametrised(wrap: Callable[[nn.Module], nn.Module]) -> Any:
    """Three convolutions, the one in the middle with a computed weight."""
    return around(lambda: wrap(conv(8, 8)))


def old_weight_norm(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        return nn.utils.weight_norm(module)


def with_zeros(x: Tensor) -> Tensor:
    return torch.cat((x, torch.zeros(len(x), 4, *x.shape[2:])), 1)


P = nn.utils.parametrizations
A = (("a.weight", 0),)
ORIGINAL = "middle.parametrizations.weight.original"
FAULTS: dict[str, Fault] = {
    # -- channels in another order
    "channel shuffle": Fault(between(lambda x: F.channel_shuffle(x, 2)), "any"),
    "channel shuffle of four": Fault(between(lambda x: F.channel_shuffle(x, 4)), "any"),
    "channel shuffle by views": Fault(between(shuffled), "cut"),
    "shuffled halves": Fault(net(half_passed, a=c(3, 8), b=c(4, 4), head=c(8, 2)), "any"),
    "permutation": Fault(between(lambda x: x[:, [3, 1, 0, 2, 7, 6, 4, 5]]), "any"),
    "permutation by index_select": Fault(between(lambda x: x.index_select(1, torch.arange(7, -1, -1))), "any"),
    "flip": Fault(between(lambda x: x.flip(1)), "cut"),
    "flip and sum": Fault(between(lambda x: x + x.flip(1)), "cut"),
    "roll": Fault(between(lambda x: x.roll(3, 1)), "any"),
    # -- flattening
    "flatten": Fault(flat(lambda x: x.flatten(1)), "cut"),
    "flatten NHWC": Fault(flat(lambda x: x.permute(0, 2, 3, 1).flatten(1)), "cut"),
    "flatten NHCW": Fault(flat(lambda x: x.transpose(1, 2).reshape(len(x), -1)), "cut"),
    "flatten transposed pixels": Fault(flat(lambda x: x.transpose(2, 3).reshape(len(x), -1)), "cut"),
    "flatten channels_last memory": Fault(flat(lambda x: x.to(memory_format=torch.channels_last).flatten(1)), "cut"),
    "flatten and BatchNorm1d": Fault(flat(lambda x: x.flatten(1), norm=True), "cut"),
    "concatenated flat maps": Fault(flat(lambda x: torch.cat((x.flatten(1), x.flip(3).flatten(1)), 1), 192), "cut"),
    "concatenated flat maps of two orders": Fault(
        flat(lambda x: torch.cat((x.permute(0, 2, 3, 1).flatten(1), x.mean((2, 3)), x.flatten(1)), 1), 198), "cut"
    ),
    "flatten to a written size": Fault(flat(lambda x: x.reshape(-1, 96)), "any"),
    "flatten and view back": Fault(between(lambda x: x.flatten(1).view(-1, 8, 8, 8)), "any"),
    # -- normalisations
    "GroupNorm": Fault(around(lambda: nn.GroupNorm(4, 8)), "cut"),
    "GroupNorm per channel": Fault(around(lambda: nn.GroupNorm(8, 8)), "cut"),
    "GroupNorm of one group": Fault(around(lambda: nn.GroupNorm(1, 8)), "any"),
    "GroupNorm without scale": Fault(around(lambda: nn.GroupNorm(4, 8, affine=False)), "any"),
    "GroupNorm before concatenation": Fault(
        net(
            lambda self, x: self.head(torch.cat((self.gn(self.a(x)), self.b(x)), 1)),
            a=c(3, 8), b=c(3, 4), gn=lambda: nn.GroupNorm(4, 8), head=c(12, 2),
        ), "cut",
    ),
    "InstanceNorm": Fault(around(lambda: nn.InstanceNorm2d(8, affine=True)), "cut"),
    "BatchNorm without scale": Fault(around(lambda: nn.BatchNorm2d(8, affine=False)), "any"),
    "BatchNorm without statistics": Fault(around(lambda: nn.BatchNorm2d(8, track_running_stats=False)), "cut"),
    "LocalResponseNorm": Fault(around(lambda: nn.LocalResponseNorm(3)), "any"),
    "LayerNorm of channels": Fault(
        around(lambda: Net(lambda s, x: s.n(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), n=nn.LayerNorm(8))), "any"
    ),
    "L2 normalised": Fault(between(lambda x: F.normalize(x, dim=1)), "cut"),
    # -- parts of channels
    "detached branch": Fault(
        net(
            lambda self, x: self.head((y := F.relu(self.a(x))) + self.b(y.detach())), a=c(3, 8), b=c(8, 8), head=c(8, 2)
        ), "cut",
    ),
    "chunk into unequal uses": Fault(net(unequal, a=c(3, 8), b=c(4, 6), c=c(4, 5), d=c(5, 6), head=c(6, 2)), "any"),
    "split into unequal parts": Fault(net(split_unequal, a=c(3, 8), b=c(2, 6), c=c(6, 6), head=c(6, 2)), "any"),
    "gated linear unit": Fault(between(lambda x: F.glu(x, 1), out=4), "any"),
    "gate by chunk": Fault(between(lambda x: x.chunk(2, 1)[0] * x.chunk(2, 1)[1].sigmoid(), out=4), "cut"),
    "first channels": Fault(between(lambda x: x[:, :5], out=5), "any"),
    "last channels": Fault(between(lambda x: x[:, -3:], out=3), "any"),
    "slice of everything": Fault(between(lambda x: x[:, :8]), "cut"),
    "maxout": Fault(between(lambda x: x.view(len(x), 4, 2, 8, 8).amax(2), out=4), "any"),
    "unbind and stack": Fault(between(lambda x: torch.stack(x.unbind(1)[::2], 1), out=4), "any"),
    "zeros added as channels": Fault(between(with_zeros, out=12), "cut"),
    # -- pixels and channels
    "pixel shuffle": Fault(between(lambda x: F.pixel_shuffle(x, 2), out=2), "cut"),
    "pixel unshuffle": Fault(between(lambda x: F.pixel_unshuffle(x, 2), out=32), "cut"),
    "unfold": Fault(net(windows, a=c(3, 6), b=lin(24, 5), head=lin(5, 2)), "cut"),
    "unfold to maps": Fault(between(lambda x: F.unfold(x, 3, padding=1).view(len(x), -1, 8, 8), out=72), "cut"),
    "channels as pixels": Fault(between(lambda x: x.transpose(1, 2), out=8), "any"),
    "attention by a 1d convolution": Fault(
        around(lambda: Net(
            lambda s, x: x * s.e(x.mean((2, 3)).unsqueeze(1)).sigmoid().squeeze(1)[:, :, None, None],
            e=nn.Conv1d(1, 1, 3, padding=1, bias=False),
        )), "any",
    ),
    # -- convolutions
    "depthwise": Fault(around(lambda: conv(8, 8, groups=8)), "cut"),
    "depthwise multiplier 2": Fault(around(lambda: conv(8, 16, groups=8), out=16), "cut"),
    "depthwise multiplier 3": Fault(around(lambda: conv(8, 24, groups=8), out=24), "cut"),
    "grouped": Fault(around(lambda: conv(8, 12, groups=4), out=12), "cut"),
    "grouped after grouped": Fault(
        around(lambda: nn.Sequential(conv(8, 12, groups=4), nn.ReLU(), conv(12, 8, groups=2))), "cut"
    ),
    "transposed": Fault(around(lambda: nn.ConvTranspose2d(8, 6, 2, 2), out=6), "cut"),
    "grouped transposed": Fault(around(lambda: nn.ConvTranspose2d(8, 12, 2, 2, groups=4), out=12), "cut"),
    "depthwise transposed": Fault(around(lambda: nn.ConvTranspose2d(8, 8, 2, 2, groups=8)), "cut"),
    "channel-padded shortcuts": Fault(cifar_resnet, "cut", (("0.weight", 0), ("6.a.weight", 0))),
    # -- repeated channels
    "repeat": Fault(between(lambda x: x.repeat(1, 2, 1, 1), out=16), "cut"),
    "repeat_interleave": Fault(between(lambda x: x.repeat_interleave(2, 1), out=16), "cut"),
    "expand and flatten": Fault(
        between(lambda x: x[:, :, None].expand(-1, -1, 3, -1, -1).flatten(1, 2), out=24), "cut"
    ),
    "expand before": Fault(between(lambda x: x[:, None].expand(-1, 3, -1, -1, -1).flatten(1, 2), out=24), "cut"),
    "concatenated with itself": Fault(between(lambda x: torch.cat((x, x), 1), out=16), "cut"),
    "one map to all": Fault(between(lambda x: x * x.mean(1, keepdim=True)), "any"),
    # -- recurrent layers
    "LSTM": Fault(recurrent(nn.LSTM), "any", (*A, ("rnn.weight_hh_l0", 1))),
    "LSTM of two layers, both ways": Fault(recurrent(nn.LSTM, 12, num_layers=2, bidirectional=True), "any"),
    "GRU": Fault(recurrent(nn.GRU), "any", (*A, ("rnn.weight_hh_l0", 1))),
    "RNN": Fault(recurrent(nn.RNN), "cut"),
    "LSTM with projection": Fault(recurrent(nn.LSTM, 3, proj_size=3), "cut"),
    # -- weights that are computed
    "weight_norm, old": Fault(parametrised(old_weight_norm), "any", (*A, ("middle.weight_v", 0))),
    "weight_norm": Fault(parametrised(P.weight_norm), "any", (*A, (ORIGINAL + "1", 0))),
    "spectral_norm, old": Fault(
        parametrised(nn.utils.spectral_norm), "any", (*A, ("middle.weight_orig", 0))
    ),
    "spectral_norm": Fault(parametrised(P.spectral_norm), "any", (*A, (ORIGINAL, 0))),
    "parametrisation of one's own": Fault(
        parametrised(lambda m: nn.utils.parametrize.register_parametrization(m, "weight", Doubled())), "any",
        (*A, (ORIGINAL, 0)),
    ),
    "standardised weight": Fault(
        around(lambda: Net(
            lambda s, x: F.conv2d(x, (s.w - s.w.mean((1, 2, 3), True)) / s.w.std((1, 2, 3), keepdim=True), padding=1),
            w=nn.Parameter(torch.randn(8, 8, 3, 3)),
        )), "any",
    ),
    "weight and its transpose": Fault(
        net(lambda self, x: self.head(F.relu(x @ self.w) @ self.w.t()), sequences,
            w=lambda: nn.Parameter(torch.randn(3, 8)), head=lin(3, 2)), "cut", (("w", 1),),
    ),
    # -- buffers and constants
    "buffer with a channel axis": Fault(
        around(lambda: Net(lambda s, x: x * s.scale, scale=torch.rand(8, 1, 1) + 0.5)), "cut"
    ),
    "buffer added": Fault(around(lambda: Net(lambda s, x: x + s.shift, shift=torch.randn(1, 8, 1, 1))), "cut"),
    "permutation in a buffer": Fault(around(lambda: Net(lambda s, x: x[:, s.order], order=torch.randperm(8))), "any"),
    "constant in the code": Fault(between(lambda x: x * torch.linspace(1, 2, 8).view(8, 1, 1)), "any"),
    "sigmoid": Fault(between(torch.sigmoid), "any"),
    "sigmoid before a 1 x 1 convolution": Fault(
        net(lambda self, x: self.head(self.a(x).sigmoid()), a=c(3, 8), head=c(8, 2, 1)), "cut"
    ),
    "sigmoid before a linear layer": Fault(
        net(lambda self, x: self.head(self.a(x).sigmoid()), sequences, a=lin(3, 8), head=lin(8, 2)), "cut"
    ),
    "softplus and pooling": Fault(between(lambda x: F.avg_pool2d(F.softplus(x), 3, 1, 1)), "any"),
    "exponential": Fault(between(torch.exp), "any"),
    "cosine squared": Fault(between(lambda x: x.cos() ** 2), "any"),
    "plus one": Fault(between(lambda x: x + 1), "any"),
    "logarithm": Fault(between(lambda x: (x + 1e-3).log()), "any"),
    "bare logarithm": Fault(between(lambda x: x.log().clamp(-5, 5)), "any"),
    "divided by itself": Fault(between(lambda x: x / (x.abs().mean((2, 3), keepdim=True) + 1)), "cut"),
    "quotient of two layers": Fault(
        net(lambda self, x: self.head(self.a(x) / self.b(x).cosh()), a=c(3, 8), b=c(3, 8), head=c(8, 2)), "cut"
    ),
    "quotient that is 0 / 0": Fault(
        net(lambda self, x: self.head((y := self.a(x)) / y.abs().amax((2, 3), True)), a=c(3, 8), head=c(8, 2)), "any"
    ),
    "scaled by the width": Fault(between(lambda x: x * x.shape[1] ** -0.5), "any"),
    "mean of all channels": Fault(between(lambda x: x - x.mean((1, 2, 3), keepdim=True)), "any"),
    "softmax of channels": Fault(between(lambda x: x.softmax(1)), "any"),
    "sum of channels as a gate": Fault(between(lambda x: x * x.sum(1, keepdim=True).sigmoid()), "cut"),
    "sorted channels": Fault(between(lambda x: x.sort(1).values), "any"),
    "best channels": Fault(between(lambda x: x.topk(4, 1).values, out=4), "any"),
    "running sum of channels": Fault(between(lambda x: x.cumsum(1)), "any"),
    # -- training mode, sizes
    "auxiliary head": Fault(
        auxiliary, "cut", (("stem.weight", 0),),
    ),
    "one channel": Fault(net(lambda self, x: self.b(F.relu(self.a(x))), a=c(3, 1), b=c(1, 2)), "any", ()),
    "one channel among others": Fault(
        net(lambda self, x: self.b(torch.cat((self.a(x), self.c(x)), 1)), a=c(3, 1), c=c(3, 4), b=c(5, 2)),
        "cut", (("c.weight", 0),),
    ),
    "one-channel gate": Fault(around(lambda: Net(lambda s, x: x * s.g(x).sigmoid(), g=conv(8, 1))), "cut"),
}  # fmt: skip
