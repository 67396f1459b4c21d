"""More awkward constructs, beside those on which the best-known library was measured: `EVERY` holds all of them."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from structure.awkward import FAULTS, Fault, Net, around, between, c, conv, lin, net, sequences

__all__ = ["EVERY"]


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


def mixed_tokens(self: Any, x: Tensor) -> Tensor:
    """MLP-Mixer's layer over the tokens: the channels are only carried along."""
    x = F.relu(self.a(x))
    return self.head(x + self.down(F.gelu(self.up(x.transpose(1, 2)))).transpose(1, 2))


QKV = (("a.weight", 0), ("v.weight", 0))
EVERY: dict[str, Fault] = FAULTS | {
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
    "plus zeros of its size": Fault(between(lambda x: x + torch.zeros_like(x)), "any"),
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
        net(attention, sequences, a=lin(3, 8), k=lin(3, 8), v=lin(3, 8), head=lin(8, 2)), "any", QKV
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
        ), "any", (("layer.linear1.weight", 0),),
    ),
    "tokens mixed": Fault(
        net(mixed_tokens, sequences, a=lin(3, 8), up=lin(5, 12), down=lin(12, 5), head=lin(8, 2)), "any",
        (("a.weight", 0), ("up.weight", 0)),
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
        between(lambda x: F.grid_sample(x, torch.zeros(4, 5, 5, 2), align_corners=False)), "any"
    ),
    "Dropout2d": Fault(around(lambda: nn.Dropout2d(0.0)), "cut"),
    "a convolution over its own output": Fault(
        around(lambda: Net(lambda s, x: s.f(F.relu(s.f(x))), f=conv(8, 8))), "cut"
    ),
}  # fmt: skip
