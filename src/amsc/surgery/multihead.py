"""nn.MultiheadAttention after heads were removed: the inner width no longer is the width of the stream."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from amsc.errors import CutError
from amsc.surgery.heads import HeadCut, head_cut, removed_mask
from amsc.surgery.plan import AxisCut

__all__ = ["SlimMultiheadAttention", "follow_multihead"]


class SlimMultiheadAttention(nn.MultiheadAttention):
    """nn.MultiheadAttention with an inner width of its own, made by a cut, never by hand.

    It computes what the stock class does with the removed weights at zero, and takes the same arguments. `embed_dim`
    is the width of the queries; the projected queries and keys have num_heads * head_dim features, the values
    num_heads * value_dim. `scale` is that of the network before the cut. Weights are [heads, features of a head] in
    `in_proj_weight` (queries, keys, values, one after the other) or `q_proj_weight`, `k_proj_weight`, `v_proj_weight`.
    """

    value_dim: int
    scale: float

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Outputs, and weights if asked for, exactly as nn.MultiheadAttention.forward describes them."""
        if is_causal and attn_mask is None:
            raise RuntimeError("is_causal is only a hint about attn_mask; pass the causal attn_mask too")
        is_batched = query.dim() == 3
        if not is_batched:
            query, key, value = query.unsqueeze(0), key.unsqueeze(0), value.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)
        q, k, v = self._heads(query, key, value)
        mask = self._mask(q, attn_mask, key_padding_mask, num_keys=key.shape[1])
        output, weights = self._attend(q, k, v, mask, need_weights)
        output = self.out_proj(output.transpose(1, 2).flatten(2))
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if not is_batched:
            return output.squeeze(0), None if weights is None else weights.squeeze(0)
        return (output if self.batch_first else output.transpose(0, 1)), weights

    def _heads(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values as [batch, heads, positions, features of a head]."""
        inner, value_inner = self.num_heads * self.head_dim, self.num_heads * self.value_dim
        parts = [inner, inner, value_inner]
        weights: Sequence[Tensor] = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        if self.in_proj_weight is not None:
            weights = self.in_proj_weight.split(parts)
        biases: Sequence[Tensor | None] = (None, None, None)
        if self.in_proj_bias is not None:
            biases = self.in_proj_bias.split(parts)
        q, k, v = (
            functional.linear(x, weight, bias).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        if self.add_zero_attn:
            k, v = (torch.cat([x, x.new_zeros(*x.shape[:2], 1, x.shape[3])], 2) for x in (k, v))
        return q, k, v

    def _mask(
        self, q: Tensor, attn_mask: Tensor | None, key_padding_mask: Tensor | None, num_keys: int
    ) -> Tensor | None:
        """Both masks as numbers to add, [batch or 1, heads or 1, queries or 1, keys]."""
        total = None
        if attn_mask is not None:
            shape = (-1, self.num_heads) if attn_mask.dim() == 3 and attn_mask.shape[0] > 1 else (1, 1)
            total = _additive(attn_mask, q).reshape(*shape, q.shape[2], num_keys)
        if key_padding_mask is not None:
            padding = _additive(key_padding_mask, q).reshape(q.shape[0], 1, 1, num_keys)
            total = padding if total is None else total + padding
        return functional.pad(total, (0, 1)) if total is not None and self.add_zero_attn else total

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        dropout = self.dropout if self.training else 0.0
        if not need_weights:
            output = functional.scaled_dot_product_attention(q, k, v, mask, dropout, scale=self.scale)
            return output, None
        scores = (q * self.scale) @ k.transpose(-2, -1)
        weights = (scores if mask is None else scores + mask).softmax(-1)
        weights = functional.dropout(weights, dropout, training=dropout > 0)
        return weights @ v, weights

    def _reset_parameters(self) -> None:
        raise NotImplementedError("the sizes of a SlimMultiheadAttention come from a cut; build the stock class anew")


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, float("-inf"))


def follow_multihead(module: nn.MultiheadAttention, cuts: Sequence[AxisCut], out_cuts: Sequence[AxisCut]) -> None:
    """Set the sizes of `module` after its tensors (`cuts`) and those of its out projection (`out_cuts`) were cut; a
    stock module whose inner width is no longer its `embed_dim` becomes a `SlimMultiheadAttention`.

    Raises:
        CutError: the cuts do not leave whole heads of one size, or the module adds learned keys (`add_bias_kv`).
    """
    if not cuts and not out_cuts:
        return
    head_size, value_size, num_heads = _left(module, cuts, out_cuts)
    _set_stream_sizes(module)
    scale = float(getattr(module, "scale", module.head_dim**-0.5))
    is_plain = num_heads * head_size == module.embed_dim == module.out_proj.out_features
    keeps_scale = head_size == value_size and scale == head_size**-0.5
    module.num_heads, module.head_dim = num_heads, head_size
    if type(module) is nn.MultiheadAttention and is_plain and keeps_scale:
        return
    _become_slim(module, value_size, scale)


def _become_slim(module: Any, value_size: int, scale: float) -> None:
    if type(module) not in (nn.MultiheadAttention, SlimMultiheadAttention):
        raise CutError(
            f"{type(module).__name__} is a class of its own above nn.MultiheadAttention, which cannot store an inner"
            " width other than embed_dim; keep its heads and the stream it reads, or use the stock class"
        )
    if module.bias_k is not None or module.bias_v is not None:
        raise CutError("nn.MultiheadAttention with add_bias_kv=True cannot lose heads; keep them, or train without it")
    module.__class__ = SlimMultiheadAttention
    module.value_dim, module.scale = value_size, scale
    # What nn.TransformerEncoderLayer asks before it takes its fused path, which knows one width only.
    module._qkv_same_embed_dim = False


def _set_stream_sizes(module: Any) -> None:
    if module.in_proj_weight is not None:
        module.embed_dim = module.kdim = module.vdim = module.in_proj_weight.shape[1]
    else:
        weights = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
        module.embed_dim, module.kdim, module.vdim = (weight.shape[1] for weight in weights)


def _left(module: Any, cuts: Sequence[AxisCut], out_cuts: Sequence[AxisCut]) -> tuple[int, int, int]:
    """Features of a head of queries and keys, features of a head of values, and number of heads, after the cut."""
    heads, size, value_size = module.num_heads, module.head_dim, getattr(module, "value_dim", module.head_dim)
    removed = {cut.parameter: cut for cut in cuts if cut.axis == 0}
    parts: list[HeadCut | None] = []
    if "in_proj_weight" in removed:
        cut = removed["in_proj_weight"]
        masks = removed_mask(cut.size, cut.removed).split([heads * size, heads * size, heads * value_size])
        parts += [head_cut(role, mask.view(heads, -1)) for role, mask in zip("qkv", masks, strict=True)]
    for role in "qkv":
        if separate := removed.get(f"{role}_proj_weight"):
            parts.append(head_cut(role, removed_mask(separate.size, separate.removed).view(heads, -1)))
    for cut in out_cuts:
        if cut.parameter == "weight" and cut.axis == 1:
            parts.append(head_cut("v", removed_mask(cut.size, cut.removed).view(heads, -1)))
    return _common(parts, size, value_size, heads)


def _common(parts: Sequence[HeadCut | None], size: int, value_size: int, heads: int) -> tuple[int, int, int]:
    cuts = [cut for cut in parts if cut is not None]
    sizes = {(cut.role == "v", cut.new_size) for cut in cuts}
    stays = {cut.stays for cut in cuts}
    if len(cuts) < len(parts) or len(stays) > 1 or len(sizes) != len({is_value for is_value, _ in sizes}):
        raise CutError(
            f"from nn.MultiheadAttention with {heads} heads, parts would be removed that are not whole heads of"
            " queries, keys and values, nor the same number of features of every head"
        )
    new = dict(sizes)
    return new.get(False, size), new.get(True, value_size), sum(stays.pop()) if stays else heads
