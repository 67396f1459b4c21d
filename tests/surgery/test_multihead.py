import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from amsc.errors import CutError
from amsc.surgery import CutPlan, apply_plan, cut, masked
from amsc.surgery.multihead import SlimMultiheadAttention
from surgery.nets import randomized
from surgery.plans import dims, head, plan_by_hand

WIDTH, HEADS, SIZE = 12, 4, 3


class Caller(nn.Module):
    """One attention, called with any of its options."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, **options)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> tuple[Tensor, Tensor | None]:
        output: tuple[Tensor, Tensor | None] = self.attention(query, key, value, **options)
        return output


def without_heads(model: nn.Module, inputs: Any, *removed: int, at: str = "attention") -> CutPlan:
    rows = [row for number in removed for part in range(3) for row in head(number, SIZE, part * WIDTH)]
    columns = [column for number in removed for column in head(number, SIZE)]
    produced = {(f"{at}.in_proj_weight", 0): rows, (f"{at}.in_proj_bias", 0): rows}
    return plan_by_hand(model, inputs, produced, {(f"{at}.out_proj.weight", 1): columns})


def tensors(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(shape, generator=generator) for shape in shapes]


CAUSAL = torch.ones(5, 5).triu(1).bool()
OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "no weights": ({}, {"need_weights": False}),
    "weights of every head": ({"batch_first": True}, {"average_attn_weights": False}),
    "bool mask": ({}, {"attn_mask": CAUSAL}),
    "causal": ({"batch_first": True}, {"attn_mask": CAUSAL, "is_causal": True, "need_weights": False}),
    "float mask": ({}, {"attn_mask": torch.randn(5, 5)}),
    "padding": ({"batch_first": True}, {"key_padding_mask": torch.tensor([[0, 0, 0, 0, 1], [0, 0, 0, 1, 1]]).bool()}),
    "both masks": (
        {},
        {"attn_mask": CAUSAL, "key_padding_mask": torch.tensor([[0, 0, 0, 0, 1], [0, 0, 1, 1, 1]]).bool()},
    ),
    "zero attention": (
        {"add_zero_attn": True, "batch_first": True},
        {"key_padding_mask": torch.tensor([[0, 0, 0, 0, 1], [0, 0, 0, 1, 1]]).bool(), "need_weights": False},
    ),
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_attention_without_a_head_is_the_masked_one(kind: str) -> None:
    built, called = OPTIONS[kind]
    model = randomized(Caller(**built)).eval()
    x, y = tensors((2, 5, WIDTH), (2, 5, WIDTH)) if built.get("batch_first") else tensors((5, 2, WIDTH), (5, 2, WIDTH))
    plan = without_heads(model, (x, y, y), 1)
    small, zeroed = apply_plan(model, plan), masked(model, plan)
    expected, weights = zeroed(x, y, y, **called)
    actual, small_weights = small(x, y, y, **called)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
    assert isinstance(small.attention, SlimMultiheadAttention)
    assert (weights is None) == (small_weights is None)
    if kind == "weights of every head":
        torch.testing.assert_close(small_weights, weights[:, [0, 2, 3]], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weights", [True, False])
def test_mask_for_every_head_and_unbatched_inputs(weights: bool) -> None:
    model = randomized(Caller()).eval()
    (x,) = tensors((5, WIDTH))
    small = apply_plan(model, without_heads(model, (x, x, x), 1))
    mask = torch.randn(HEADS, 5, 5)
    expected, _ = masked(model, without_heads(model, (x, x, x), 1))(x, x, x, attn_mask=mask, need_weights=weights)
    actual, _ = small(x, x, x, attn_mask=mask[[0, 2, 3]], need_weights=weights)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_other_widths_of_keys_and_values_stream_and_parts_of_heads() -> None:
    model = randomized(Caller(kdim=5, vdim=7)).eval()
    x, key, value = tensors((5, 2, WIDTH), (4, 2, 5), (4, 2, 7))
    queries, values = dims(HEADS, SIZE, [0]), sorted({*dims(HEADS, SIZE, [1, 2]), *head(2, SIZE)})
    queries = sorted({*queries, *head(2, SIZE)})
    at = "attention"
    bias = [*queries, *(WIDTH + i for i in queries), *(2 * WIDTH + i for i in values)]
    produced = {(f"{at}.{role}_proj_weight", 0): queries for role in "qk"} | {
        (f"{at}.v_proj_weight", 0): values,
        (f"{at}.in_proj_bias", 0): bias,
    }
    plan = plan_by_hand(model, (x, key, value), produced, {(f"{at}.out_proj.weight", 1): values})
    small = cut(model, plan, {"query": x, "key": key, "value": value, "need_weights": False})
    attention = small.get_submodule(at)
    assert isinstance(attention, SlimMultiheadAttention)
    assert (attention.num_heads, attention.head_dim, attention.value_dim) == (3, 2, 1)


def test_module_stays_stock_where_the_stream_shrinks_with_the_heads() -> None:
    model = randomized(Caller()).eval()
    (x,) = tensors((5, 2, WIDTH))
    gone = head(0, SIZE)
    rows = [part * WIDTH + row for part in range(3) for row in gone]
    produced = {
        ("attention.in_proj_weight", 0): rows,
        ("attention.in_proj_bias", 0): rows,
        ("attention.out_proj.weight", 0): gone,
        ("attention.out_proj.bias", 0): gone,
    }
    read = {("attention.in_proj_weight", 1): gone, ("attention.out_proj.weight", 1): gone}
    plan = plan_by_hand(model, (x, x, x), produced, read)
    small = apply_plan(model, plan)
    assert type(small.attention) is nn.MultiheadAttention
    x[..., gone] = 0
    expected = masked(model, plan)(x, x, x)[0][..., SIZE:]
    narrow = x[..., SIZE:]
    torch.testing.assert_close(small(narrow, narrow, narrow)[0], expected, rtol=1e-5, atol=1e-6)


def encoder() -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 16, dropout=0.1, batch_first=True)
    return nn.TransformerEncoder(layer, 2)


def test_encoder_keeps_off_the_fused_path() -> None:
    model = randomized(encoder()).eval()
    (x,) = tensors((2, 5, WIDTH))
    plan = without_heads(model, x, 0, 3, at="layers.1.self_attn")
    small = cut(model, plan, x)
    padding = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1]]).bool()
    with torch.no_grad():
        expected = masked(model, plan)(x, src_key_padding_mask=padding)
        actual = small(x, src_key_padding_mask=padding)
    torch.testing.assert_close(actual[~padding], expected[~padding], rtol=1e-5, atol=1e-5)
    assert isinstance(small.get_submodule("layers.1.self_attn"), SlimMultiheadAttention)
    assert type(small.get_submodule("layers.0.self_attn")) is nn.MultiheadAttention


def test_small_module_copies_trains_and_is_cut_again() -> None:
    model = randomized(Caller()).train()
    (x,) = tensors((5, 2, WIDTH))
    small = apply_plan(model, without_heads(model, (x, x, x), 1))
    twin = copy.deepcopy(small)
    small(x, x, x)[0].sum().backward()
    assert all(parameter.grad is not None for parameter in small.parameters())
    twin.eval()
    rows = [9 * part + row for part in range(3) for row in head(0, SIZE)]
    produced = {("attention.in_proj_weight", 0): rows, ("attention.in_proj_bias", 0): rows}
    plan = plan_by_hand(twin, (x, x, x), produced, {("attention.out_proj.weight", 1): head(0, SIZE)})
    smaller = cut(twin, plan, {"query": x, "key": x, "value": x, "need_weights": False})
    assert smaller.get_submodule("attention").num_heads == 2
    torch.testing.assert_close(smaller(x, x, x)[0], apply_plan(model, smaller.amsc_plan).eval()(x, x, x)[0])


def test_small_module_compiles() -> None:
    model = randomized(Caller()).eval()
    (x,) = tensors((5, 2, WIDTH))
    small = apply_plan(model, without_heads(model, (x, x, x), 1))
    compiled = torch.compile(small, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, x, x)[0], small(x, x, x)[0])


def test_part_of_one_head_only_is_refused() -> None:
    model = Caller()
    (x,) = tensors((5, 2, WIDTH))
    rows = [0, WIDTH, 2 * WIDTH]
    plan = plan_by_hand(model, (x, x, x), {("attention.in_proj_weight", 0): rows, ("attention.in_proj_bias", 0): rows})
    with pytest.raises(CutError, match="not whole heads"):
        apply_plan(model, plan)


def test_learned_keys_are_refused() -> None:
    model = Caller(add_bias_kv=True)
    (x,) = tensors((5, 2, WIDTH))
    with pytest.raises(CutError, match="add_bias_kv"):
        apply_plan(model, without_heads(model, (x, x, x), 1))
