"""Stages of attention and transformers, and weights that are computed, for `random_networks`.

Each takes a feature map (n, c, SIZE, SIZE) and gives one back; inside, pixels are tokens. Sizes are stored in
attributes as users name them, so that what can be cut by changing these is found, and what cannot as well.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, spectral_norm
from torch.utils.checkpoint import checkpoint

__all__ = ["TRANSFORMER_STAGES"]

SIDE = 8
LENGTH = SIDE * SIDE
Stage = tuple[nn.Module, int]


class Apply(nn.Module):
    """`function(self, x)` of named parts and sizes; tensors that are no parameters become buffers."""

    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self, *args, **kwargs)


class Tokens(nn.Module):
    """A body over tokens (n, height * width, c), between two reshapes."""

    def __init__(self, body: nn.Module, enter: nn.Module) -> None:
        super().__init__()
        self.enter, self.body = enter, body

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(self.enter(x.flatten(2).transpose(1, 2)))
        return y.transpose(1, 2).reshape(x.shape[0], -1, *x.shape[2:])


class HandRMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.rand(width) + 0.5), 1e-6

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


class HandLayerNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.rand(width) + 0.5), nn.Parameter(torch.randn(width) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt() * self.gamma + self.beta


def token_norm(genes: Any, width: int) -> nn.Module:
    return genes.pick(
        nn.LayerNorm(width), nn.RMSNorm(width), HandRMSNorm(width), HandLayerNorm(width), nn.Identity()
    )  # fmt: skip


def token_stage(genes: Any, c: int, make: Callable[[Any, int], nn.Module]) -> Stage:
    """`make(genes, width)` over tokens of 8 or 12 numbers, with a residual connection, a norm before or after."""
    width = genes.pick(8, 12, 16)
    body, norm, style = make(genes, width), token_norm(genes, width), genes.pick("pre", "post", "scaled", "none")
    runs: dict[str, Callable[[Any, Tensor], Tensor]] = {
        "pre": lambda self, x: x + self.body(self.norm(x)),
        "post": lambda self, x: self.norm(x + self.body(x)),
        "scaled": lambda self, x: x + self.gamma * self.body(self.norm(x)),
        "none": lambda self, x: self.body(self.norm(x)),
    }
    parts = {"body": body, "norm": norm} | (
        {"gamma": nn.Parameter(torch.rand(width) + 0.1)} if style == "scaled" else {}
    )
    return Tokens(Apply(runs[style], **parts), nn.Linear(c, width)), width


# -- attention ---------------------------------------------------------------------------------------------------------


class Attention(nn.Module):
    """Self-attention as it is written by hand: three ways to project, four to multiply, with what is added inside."""

    def __init__(self, genes: Any, width: int) -> None:
        super().__init__()
        self.num_heads = genes.pick(2, 4) if width != 12 else 2  # rotary positions need heads of even size
        self.head_dim = width // self.num_heads
        self.scale = self.head_dim**-0.5
        bias = genes.pick(True, False)
        self.how, self.product = genes.pick("separate", "fused", "chunked"), genes.pick("hand", "sdpa", "scaled", "sum")
        names = ("q_proj", "k_proj", "v_proj") if self.how == "separate" else ("qkv",)
        for name in names:
            setattr(self, name, nn.Linear(width, width * (4 - len(names)) if len(names) == 1 else width, bias=bias))
        self.proj = nn.Linear(width, width, bias=genes.pick(True, False))
        self.q_norm = genes.pick(nn.Identity(), nn.Identity(), nn.LayerNorm(self.head_dim))
        self.inside = genes.pick("nothing", "rotary", "table", "flatten")
        if self.inside == "rotary":
            frequencies = 1.0 / 100 ** (torch.arange(0, self.head_dim, 2).float() / self.head_dim)
            self.register_buffer("inv_freq", frequencies)
        if self.inside == "table":
            self.bias_table = nn.Parameter(torch.randn(2 * LENGTH - 1, self.num_heads))
            place = torch.arange(LENGTH)
            self.register_buffer("index", place[:, None] - place[None, :] + LENGTH - 1)

    def projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n, length, _ = x.shape
        if self.how == "fused":
            q, k, v = self.qkv(x).reshape(n, length, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
            return q, k, v
        parts = self.qkv(x).chunk(3, -1) if self.how == "chunked" else (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        q, k, v = (part.view(n, length, self.num_heads, -1).transpose(1, 2) for part in parts)
        return q, k, v

    def rotated(self, x: Tensor) -> Tensor:
        angles = torch.outer(torch.arange(x.shape[2]).float(), self.inv_freq)
        angles = torch.cat((angles, angles), -1)
        half = x.shape[-1] // 2
        turned = torch.cat((-x[..., half:], x[..., :half]), -1)
        return x * angles.cos() + turned * angles.sin()

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.projected(x)
        q = self.q_norm(q)
        if self.inside == "rotary":
            q, k = self.rotated(q), self.rotated(k)
        bias = self.bias_table[self.index].permute(2, 0, 1) if self.inside == "table" else None
        if self.product == "sdpa":
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        elif self.product == "scaled":
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=self.scale)
        else:
            logits = q @ k.transpose(-2, -1) if self.product == "hand" else torch.einsum("bhid,bhjd->bhij", q, k)
            logits = logits * self.scale if bias is None else logits * self.scale + bias
            weights = logits.softmax(-1)
            y = weights @ v if self.product == "hand" else torch.einsum("bhij,bhjd->bhid", weights, v)
        y = y.transpose(1, 2)
        return self.proj(y.flatten(2) if self.inside == "flatten" else y.reshape(x.shape[0], x.shape[1], -1))


class GroupedQuery(nn.Module):
    """Several query heads share the keys and values of one head."""

    def __init__(self, genes: Any, width: int) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = 4, genes.pick(2, 1), width // 4
        self.num_groups, self.expands = self.num_heads // self.num_kv_heads, genes.pick(True, False)
        self.q_proj, self.o_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.k_proj = nn.Linear(width, self.num_kv_heads * self.head_dim)
        self.v_proj = nn.Linear(width, self.num_kv_heads * self.head_dim)

    def repeated(self, x: Tensor) -> Tensor:
        if not self.expands:
            return x.repeat_interleave(self.num_groups, 1)
        n, heads, length, size = x.shape
        return x[:, :, None].expand(n, heads, self.num_groups, length, size).reshape(n, -1, length, size)

    def forward(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        q, k, v = (
            p(x).view(n, length, -1, self.head_dim).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        y = F.scaled_dot_product_attention(q, self.repeated(k), self.repeated(v))
        return self.o_proj(y.transpose(1, 2).reshape(n, length, -1))


class LinearAttention(nn.Module):
    def __init__(self, genes: Any, width: int) -> None:
        super().__init__()
        self.num_heads, self.positive = genes.pick(2, 4), genes.pick("elu", "relu", "softmax")
        self.qkv, self.proj = nn.Linear(width, 3 * width, bias=genes.pick(True, False)), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        q, k, v = self.qkv(x).view(n, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        if self.positive == "softmax":
            y = q @ (k.softmax(-2).transpose(-2, -1) @ v)
        else:
            q, k = (F.elu(part) + 1 if self.positive == "elu" else F.relu(part) for part in (q, k))
            y = q @ (k.transpose(-2, -1) @ v) / (q @ k.sum(-2)[..., None] + 1e-3)
        return self.proj(y.transpose(1, 2).reshape(n, length, -1))


class Windows(nn.Module):
    """Swin's attention in shifted windows of 4 x 4 tokens."""

    def __init__(self, genes: Any, width: int) -> None:
        super().__init__()
        self.window_size, self.shift = 4, genes.pick(0, 2)
        self.attention = genes.pick(WholeHead, LinearAttention)(genes, width)

    def forward(self, x: Tensor) -> Tensor:
        n, _, width = x.shape
        w, maps = self.window_size, x.view(n, SIDE, SIDE, width)
        if self.shift:
            maps = torch.roll(maps, (-self.shift, -self.shift), (1, 2))
        maps = maps.view(n, SIDE // w, w, SIDE // w, w, width).permute(0, 1, 3, 2, 4, 5).reshape(-1, w * w, width)
        maps = self.attention(maps).view(n, SIDE // w, SIDE // w, w, w, -1).permute(0, 1, 3, 2, 4, 5)
        maps = maps.reshape(n, SIDE, SIDE, -1)
        return (torch.roll(maps, (self.shift, self.shift), (1, 2)) if self.shift else maps).flatten(1, 2)


class WholeHead(nn.Module):
    """One head, with queries and keys of another width than the values."""

    def __init__(self, genes: Any, width: int) -> None:
        super().__init__()
        self.to_q, self.to_k = nn.Linear(width, 6), nn.Linear(width, 6)
        self.to_v, self.out = nn.Linear(width, 10), nn.Linear(10, width)

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.bmm(self.to_q(x), self.to_k(x).transpose(1, 2)).mul(6**-0.5).softmax(-1)
        return self.out(torch.bmm(weights, self.to_v(x)))


class Multihead(nn.Module):
    def __init__(self, genes: Any, width: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, genes.pick(2, 4), bias=genes.pick(True, False), batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


def encoder_layer(genes: Any, width: int) -> nn.Module:
    return nn.TransformerEncoderLayer(
        width, 2, 12, dropout=0.0, batch_first=True, norm_first=genes.pick(True, False),
        activation=genes.pick("relu", "gelu"),
    )  # fmt: skip


def attended(genes: Any, c: int) -> Stage:
    return token_stage(genes, c, Attention)


def attended_otherwise(genes: Any, c: int) -> Stage:
    return token_stage(
        genes, c, genes.pick(GroupedQuery, LinearAttention, Windows, Multihead, encoder_layer, WholeHead)
    )


# -- what is between attentions ----------------------------------------------------------------------------------------


def perceptron(genes: Any, width: int) -> nn.Module:
    """Two linear layers, with a gate by two linear layers or by halves of one, or with one tied to the other."""
    inner, act = genes.pick(12, 16), genes.pick(F.silu, F.gelu, torch.relu, torch.sigmoid)
    two = {"up": nn.Linear(width, inner), "down": nn.Linear(inner, width)}
    return genes.pick(
        Apply(lambda self, x: self.down(act(self.up(x))), **two),
        Apply(lambda self, x: self.down(act(self.gate(x)) * self.up(x)), gate=nn.Linear(width, inner), **two),
        Apply(
            lambda self, x: self.down(act((parts := self.up(x).chunk(2, -1))[0]) * parts[1]),
            up=nn.Linear(width, 2 * inner), down=nn.Linear(inner, width),
        ),
        Apply(lambda self, x: self.down(F.glu(self.up(x), -1)), up=nn.Linear(width, 24), down=nn.Linear(12, width)),
        Apply(lambda self, x: F.linear(act(self.up(x)), self.up.weight.t()), up=nn.Linear(width, inner)),
        Apply(lambda self, x: checkpoint(lambda y: self.down(act(self.up(y))), x, use_reentrant=False), **two),
        Apply(lambda self, x: torch.einsum("nld,de->nle", x, self.w), w=nn.Parameter(torch.randn(width, width) * 0.3)),
        Apply(lambda self, x: self.mix(x.transpose(1, 2)).transpose(1, 2), mix=nn.Linear(LENGTH, LENGTH)),
    )  # fmt: skip


def fed_forward(genes: Any, c: int) -> Stage:
    return token_stage(genes, c, perceptron)


def positioned(genes: Any, c: int) -> Stage:
    """A class token and a position embedding, both parameters; the class token leaves again, or gates the others."""
    body = nn.Linear(c, c)

    def run(self: Any, x: Tensor) -> Tensor:
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), 1) + self.pos_embed
        x = x + F.gelu(self.body(x))
        return x[:, 1:] * x[:, :1].tanh() if self.gates else x[:, 1:]

    tokens = {"cls_token": nn.Parameter(torch.randn(1, 1, c)), "pos_embed": nn.Parameter(torch.randn(1, LENGTH + 1, c))}
    return Tokens(Apply(run, body=body, gates=genes.pick(True, False), **tokens), nn.Identity()), c


def squeezed(genes: Any, c: int) -> Stage:
    """Squeeze-excite over tokens."""
    parts = {"down": nn.Linear(c, 4), "up": nn.Linear(4, c)}
    run: Callable[[Any, Tensor], Tensor] = lambda s, x: x * s.up(F.relu(s.down(x.mean(1)))).sigmoid().unsqueeze(1)  # noqa: E731
    return Tokens(Apply(run, **parts), nn.Identity()), c


# -- weights that are computed, other shapes in space ------------------------------------------------------------------


def standardised(c: int, out: int) -> nn.Module:
    """A convolution whose weight has mean 0 and variance 1."""

    def run(self: Any, x: Tensor) -> Tensor:
        w = self.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(x, w, padding=1)

    return Apply(run, weight=nn.Parameter(torch.randn(out, c, 3, 3)))


def computed_weight(genes: Any, c: int) -> Stage:
    conv = nn.Conv2d(c, 8, 3, padding=1)
    layer = genes.pick(
        lambda: parametrizations.weight_norm(conv), lambda: parametrizations.spectral_norm(conv),
        lambda: spectral_norm(conv), lambda: standardised(c, 8),
    )()  # fmt: skip
    return nn.Sequential(layer, nn.ReLU(), nn.Conv2d(8, 6, 1)), 6


def unfolded(genes: Any, c: int) -> Stage:
    """im2col and a linear layer, at every pixel."""

    def run(self: Any, x: Tensor) -> Tensor:
        columns = F.unfold(x, 3, padding=1).transpose(1, 2)
        return self.linear(columns).transpose(1, 2).reshape(x.shape[0], -1, *x.shape[2:])

    return Apply(run, linear=nn.Linear(9 * c, 8)), 8


def in_one_dimension(genes: Any, c: int) -> Stage:
    groups = genes.pick(1, 8)
    parts = {"a": nn.Conv1d(c, 8, 3, padding=1), "b": nn.Conv1d(8, 8, 3, padding=1, groups=groups)}
    return Apply(lambda s, x: s.b(F.relu(s.a(x.flatten(2)))).view(x.shape[0], -1, *x.shape[2:]), **parts), 8


def in_three_dimensions(genes: Any, c: int) -> Stage:
    """Pixels seen as a volume of 4 x 4 x 4, or the channels as its depth."""
    parts = {"a": nn.Conv3d(c, 6, 3, padding=1), "norm": nn.BatchNorm3d(6)}
    if genes.pick(True, False):
        volume: Callable[[Any, Tensor], Tensor] = lambda s, x: F.silu(s.norm(s.a(x.reshape(*x.shape[:2], 4, 4, 4))))  # noqa: E731
        return Apply(lambda s, x: volume(s, x).reshape(x.shape[0], -1, *x.shape[2:]), **parts), 6
    deep = nn.Conv3d(1, 2, 3, padding=1)
    return Apply(lambda s, x: s.deep(x.unsqueeze(1)).sum(1), deep=deep), c


def shuffled(genes: Any, c: int) -> Stage:
    """A grouped convolution and a channel shuffle by views."""
    parts = {"enter": nn.Conv2d(c, 12, 1), "grouped": nn.Conv2d(12, 12, 3, padding=1, groups=3)}

    def run(self: Any, x: Tensor) -> Tensor:
        x = F.relu(self.grouped(self.enter(x)))
        n, width, h, w = x.shape
        return x.view(n, self.groups, width // self.groups, h, w).transpose(1, 2).reshape(n, width, h, w)

    return Apply(run, groups=3, **parts), 12


def patched(genes: Any, c: int) -> Stage:
    """Patches of 2 x 2 become tokens of a wider linear layer, and pixels again."""
    size = genes.pick("bilinear", "nearest", "shuffle")
    enter, back = nn.Conv2d(c, 12, 2, stride=2), nn.Linear(12, 16)

    def run(self: Any, x: Tensor) -> Tensor:
        x = self.back(F.gelu(self.enter(x)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        if size == "shuffle":
            return F.pixel_shuffle(x, 2)
        return F.interpolate(x, scale_factor=2, mode=size)

    return Apply(run, enter=enter, back=back), 4 if size == "shuffle" else 16


TRANSFORMER_STAGES = (
    attended, attended, attended, attended_otherwise, attended_otherwise, fed_forward, fed_forward, positioned,
    squeezed, computed_weight, unfolded, in_one_dimension, in_three_dimensions, shuffled, patched,
)  # fmt: skip
