"""More awkward constructs, beside those on which the best-known library was measured: `EVERY` holds all of them."""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amsc.structure import Structure, trace
from structure.awkward import FAULTS, Fault, Net, around, between, c, conv, lin, net, sequences

__all__ = ["EVERY", "traced"]


def volumes() -> Tensor:
    return torch.randn(4, 3, 6, 6, 6)


def in_space(rank: int) -> dict[str, Any]:
    """Convolution, normalisation and a linear layer over maps of one or three axes."""
    kind = {1: nn.Conv1d, 3: nn.Conv3d}[rank]
    norm = {1: nn.BatchNorm1d, 3: nn.BatchNorm3d}[rank]
    return {"a": lambda: kind(3, 6, 3, padding=1), "bn": lambda: norm(6), "head": lin(6 * 3**rank, 4)}


def attention(self: Any, x: Tensor) -> Tensor:
    """Heads by reshapes, the products written out."""
    n, length, _ = x.shape
    q, k, v = (part(x).view(n, length, 2, -1).transpose(1, 2) for part in (self.a, self.k, self.v))
    weights = (q @ k.transpose(2, 3) * 0.5).softmax(3)
    return self.head((weights @ v).transpose(1, 2).reshape(n, length, -1))


def with_alibi(self: Any, x: Tensor) -> Tensor:
    """Heads of four by a reshape; the products are added to a bias by position, as Bloom does."""
    n, length, _ = x.shape
    q, k, v = (part(x).view(n, length, -1, 4).transpose(1, 2).flatten(0, 1) for part in (self.a, self.k, self.v))
    distance = torch.arange(float(length)).expand(1, 1, length)
    weights = distance.baddbmm(q, k.transpose(1, 2), beta=-0.1, alpha=0.5).softmax(2)
    return self.head((weights @ v).view(n, -1, length, 4).transpose(1, 2).flatten(2))


def turned(self: Any, x: Tensor) -> Tensor:
    """Rotary positions by complex numbers, as LLaMA's own code writes them."""
    n, length, _ = x.shape
    angles = torch.polar(torch.ones(length, 1, 2), torch.arange(2.0 * length).view(length, 1, 2))
    q, k = (torch.view_as_complex(part(x).view(n, length, -1, 2, 2)) * angles for part in (self.a, self.k))
    q, k = (torch.view_as_real(part).flatten(3).transpose(1, 2) for part in (q, k))
    v = self.v(x).view(n, length, -1, 4).transpose(1, 2)
    weights = (q @ k.transpose(2, 3) * 0.5).softmax(3)
    return self.head((weights @ v).transpose(1, 2).flatten(2))


def mixed_tokens(self: Any, x: Tensor) -> Tensor:
    """MLP-Mixer's layer over the tokens: the channels are only carried along."""
    x = F.relu(self.a(x))
    return self.head(x + self.down(F.gelu(self.up(x.transpose(1, 2)))).transpose(1, 2))


def backwards(x: Tensor) -> Tensor:
    """Channel numbers from the last to the first."""
    return torch.arange(7, -1, -1).view(1, 8, 1, 1).expand(x.shape)


# One operator each, from 8 channels to 8. After these the channels must still be removable; after `OTHERS` they may be.
CARRIED: dict[str, Callable[[Tensor], Tensor]] = {
    "select one row": lambda x: x * x.select(2, 3).unsqueeze(2),
    "stack and sum": lambda x: torch.stack((x, x.flip(3))).sum(0),
    "clone and write": lambda x: x.clone().mul_(2),
    "masked fill": lambda x: x.masked_fill(x > 1, 1.0),
    "hardswish in place": lambda x: F.hardswish(x.clone(), inplace=True),
    "standard deviation": lambda x: x / (x.std((2, 3), keepdim=True) + 1),
    "variance and mean": lambda x: (x - x.mean((2, 3), True)) * (x.var((2, 3), keepdim=True) + 1e-5).rsqrt(),
    "largest pixel": lambda x: x - x.flatten(2).max(2).values[:, :, None, None],
    "least pixel": lambda x: x - x.amin((2, 3), keepdim=True),
    "softmax of pixels": lambda x: x * x.flatten(2).softmax(2).view(x.shape),
    "diagonal of pixels": lambda x: x * x.diagonal(dim1=2, dim2=3).unsqueeze(2),
    "windows of pixels": lambda x: x.unfold(2, 2, 2).amax(4).repeat_interleave(2, 2),
    "adaptive largest": lambda x: F.adaptive_max_pool2d(x, 4),
    "adaptive mean": lambda x: F.adaptive_avg_pool2d(x, (4, 2)),
    "largest with places": lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
    "bicubic": lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"),
    "bilinear, smoothed": lambda x: F.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True),
    "nearest, exactly": lambda x: F.interpolate(x, scale_factor=2, mode="nearest-exact"),
    "padded by its edge": lambda x: F.pad(x, (1, 1, 1, 1), "replicate"),
    "a written new tensor": lambda x: x.new_zeros(x.shape).copy_(x),
    "an empty tensor filled": lambda x: torch.empty_like(x).copy_(x).add_(x),
    "double precision for a while": lambda x: (x.double() * 2).float(),
    "outer in memory": lambda x: x.contiguous(memory_format=torch.channels_last) * 2,
    "write into a clone's rows": lambda x: x.clone().index_fill_(2, torch.tensor([1]), 0.0),
    "product of pixels": lambda x: x + x.prod(3, keepdim=True),
    "triangle of pixels": lambda x: x.triu(),
    "ones of its size": lambda x: x * torch.ones_like(x),
    "a new tensor by channel": lambda x: x * x.new_ones(x.shape[1], 1, 1),
    "strided by hand": lambda x: x.contiguous().as_strided(x.shape, x.contiguous().stride()),
    "filled in place": lambda x: x * torch.empty_like(x).fill_(2.0),
    "zeros in place added": lambda x: x + x.clone().zero_(),
    "dropped with a chance of none": lambda x: x * torch.empty_like(x).bernoulli_(1.0),
}
OTHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "select one channel": lambda x: x * x.select(1, 3).unsqueeze(1),
    "stack on a new axis": lambda x: torch.stack((x, 2 * x), 2).flatten(1, 2)[:, ::2],
    "masked fill of zeros": lambda x: x.masked_fill(x < 0.1, 0.5),
    "log sigmoid": F.logsigmoid,
    "largest of all": lambda x: x - x.max(),
    "logsumexp of pixels": lambda x: x - x.logsumexp((2, 3), keepdim=True),
    "logsumexp of channels": lambda x: x - x.logsumexp(1, keepdim=True),
    "log softmax of pixels": lambda x: x.flatten(2).log_softmax(2).view(x.shape),
    "triangle of channels": lambda x: (x.transpose(1, 3).tril()).transpose(1, 3),
    "windows of channels": lambda x: x.unfold(1, 2, 2).amax(4).repeat_interleave(2, 1),
    "gathered pixels": lambda x: x.gather(2, torch.zeros_like(x, dtype=torch.long)),
    "gathered channels": lambda x: x.gather(1, torch.zeros_like(x, dtype=torch.long)),
    "unpooled": lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
    "padded around": lambda x: F.pad(x, (1, 1, 1, 1), "circular"),
    "padded channels of ones": lambda x: F.pad(x, (0, 0, 0, 0, 1, 0), value=1.0)[:, 1:],
    "noise of its size": lambda x: x + 0 * torch.randn_like(x),
    "a full new tensor": lambda x: x + x.new_full(x.shape, 0.3),
    "twos of its size added": lambda x: x + torch.empty_like(x).fill_(2.0),
    "noise of one value added": lambda x: x + torch.empty_like(x).uniform_(0.5, 0.5),
    "written to noise": lambda x: torch.randn(len(x), 10, 8, 8).index_copy_(1, torch.arange(1, 9), x)[:, 1:9],
    "written to a part of noise": lambda x: (y := torch.rand(len(x), 12, 8, 8))[:, 2:10].copy_(x) * 0 + y[:, 2:10],
    "channels in the order of a table": lambda x: x.index_select(1, torch.tensor([3, 1, 0, 2, 7, 6, 4, 5])),
    "channels gathered in an order": lambda x: x.gather(1, backwards(x)),
    "channels scattered in an order": lambda x: x.scatter(1, backwards(x), x),
    "complex for a while": lambda x: torch.view_as_real(torch.complex(x, x)).sum(4),
    "nan_to_num": lambda x: torch.nan_to_num(x / x.sum((2, 3), keepdim=True)),
    "distance": lambda x: x - torch.cdist(x.flatten(2), x.flatten(2)).mean(2)[:, :, None, None],
    "gram matrix": lambda x: (x.flatten(2) @ x.flatten(2).transpose(1, 2)).mean(2)[:, :, None, None] * x,
    "meshgrid": lambda x: x + torch.linspace(0, 1, 8)[:, None],
}
QKV = (("a.weight", 0), ("v.weight", 0))
EVERY: dict[str, Fault] = FAULTS | {
    **{name: Fault(between(apply), "cut") for name, apply in CARRIED.items()},
    **{name: Fault(between(apply), "any") for name, apply in OTHERS.items()},
    "one axis in space": Fault(
        net(
            lambda self, x: self.head(F.max_pool1d(F.relu(self.bn(self.a(x))), 2).flatten(1)),
            lambda: torch.randn(4, 3, 6), **in_space(1),
        ), "cut",
    ),
    "one axis in space, padded by itself": Fault(
        net(
            lambda self, x: self.head(F.pad(F.relu(self.bn(self.a(x))), (1, 1), "reflect")[:, :, ::3].flatten(1)),
            lambda: torch.randn(4, 3, 6), **in_space(1),
        ), "cut",
    ),
    "three axes in space": Fault(
        net(
            lambda self, x: self.head(F.avg_pool3d(F.relu(self.bn(self.a(x))), 2).flatten(1)), volumes, **in_space(3)
        ), "cut",
    ),
    "detached weight": Fault(
        net(lambda self, x: self.head(F.relu(F.conv2d(x, self.a.weight.detach()))), a=c(3, 8), head=c(8, 2)), "cut"
    ),
    "exponential before a linear layer": Fault(
        net(lambda self, x: self.head(self.a(x).exp()), sequences, a=lin(3, 8), head=lin(8, 2)), "cut"
    ),
    "plus one before a 1 x 1 convolution": Fault(
        net(lambda self, x: self.head(self.a(x) + 1), a=c(3, 8), head=c(8, 2, 1)), "cut"
    ),
    "plus zeros of its size": Fault(between(lambda x: x + torch.zeros_like(x)), "cut"),
    "where": Fault(between(lambda x: torch.where(x > 0.1, x, 0.1 * x)), "cut"),
    "outer product": Fault(
        net(
            lambda self, x: self.head(torch.einsum("ncij,ndij->ncd", self.a(x), self.b(x)).flatten(1)),
            a=c(3, 8), b=c(3, 4), head=lin(32, 3),
        ), "any", (("a.weight", 0), ("b.weight", 0)),
    ),
    "dynamic filters": Fault(
        around(lambda: Net(
            lambda s, x: F.conv2d(x.reshape(1, -1, 8, 8), s.f(x.mean((2, 3))).view(-1, 1, 3, 3), padding=1,
                                  groups=x.shape[0] * x.shape[1]).view(x.shape), f=nn.Linear(8, 72),
        )), "any",
    ),
    "attention by hand": Fault(
        net(attention, sequences, a=lin(3, 8), k=lin(3, 8), v=lin(3, 8), head=lin(8, 2)), "cut", QKV
    ),
    "attention with a bias by baddbmm": Fault(
        net(with_alibi, sequences, a=lin(3, 8), k=lin(3, 8), v=lin(3, 8), head=lin(8, 2)), "cut", QKV
    ),
    "rotary positions by complex numbers": Fault(
        net(turned, sequences, a=lin(3, 8), k=lin(3, 8), v=lin(3, 8), head=lin(8, 2)), "cut", QKV
    ),
    "one vector into a layer written out": Fault(
        net(
            lambda self, x: torch.addmv(self.head.bias, self.head.weight, F.relu(self.a(x)).mean((0, 1)))[None],
            sequences, a=lin(3, 8), head=lin(8, 2),
        ), "any",
    ),
    "one vector out of a layer written out": Fault(
        net(
            lambda self, x: self.head(torch.addmv(self.up.bias, self.up.weight, x[0, 0]).relu())[None],
            sequences, up=lin(3, 8), head=lin(8, 2),
        ), "cut", (("up.weight", 0),),
    ),
    "nn.MultiheadAttention": Fault(
        net(
            lambda self, x: self.head(self.mha(y := self.a(x), y, y)[0]), sequences,
            a=lin(3, 8), mha=lambda: nn.MultiheadAttention(8, 2, batch_first=True), head=lin(8, 2),
        ), "any", (("mha.in_proj_weight", 0),),
    ),
    "nn.TransformerEncoderLayer": Fault(
        net(
            lambda self, x: self.head(self.layer(self.a(x))), sequences, a=lin(3, 8), head=lin(8, 2),
            layer=lambda: nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True),
        ), "cut", (("layer.linear1.weight", 0),),
    ),
    "tokens mixed": Fault(
        net(mixed_tokens, sequences, a=lin(3, 8), up=lin(5, 12), down=lin(12, 5), head=lin(8, 2)), "any",
        (("a.weight", 0), ("up.weight", 0)),
    ),
    "embedding": Fault(
        net(
            lambda self, x: self.head(F.relu(self.b(self.table(x)))), lambda: torch.randint(0, 9, (4, 5)),
            table=lambda: nn.Embedding(9, 8), b=lin(8, 6), head=lin(6, 2),
        ), "cut", (("table.weight", 1),),
    ),
    "embedding bag": Fault(
        net(
            lambda self, x: self.head(self.bag(x)), lambda: torch.randint(0, 9, (4, 5)),
            bag=lambda: nn.EmbeddingBag(9, 8), head=lin(8, 2),
        ), "any", (("bag.weight", 1),),
    ),
    "bilinear layer": Fault(
        net(lambda self, x: self.two(F.relu(self.a(x)), x), sequences, a=lin(3, 8), two=lambda: nn.Bilinear(8, 3, 4)),
        "any",
    ),
    "grid sample": Fault(
        between(lambda x: F.grid_sample(x, torch.zeros(4, 5, 5, 2), align_corners=False)), "cut"
    ),
    "Dropout2d": Fault(around(lambda: nn.Dropout2d(0.0)), "cut"),
    "a convolution over its own output": Fault(
        around(lambda: Net(lambda s, x: s.f(F.relu(s.f(x))), f=conv(8, 8))), "cut"
    ),
}  # fmt: skip


@functools.cache
def traced(name: str, seed: int) -> tuple[nn.Module, Any, Structure]:
    """(model, inputs, structure) of a construct, made once: no test may change them."""
    model, inputs = EVERY[name].build(seed)
    return model, inputs, trace(model, inputs)
