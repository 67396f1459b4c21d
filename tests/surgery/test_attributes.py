"""Look-alikes of other libraries' modules, which store their sizes under the names used there."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from amsc.errors import CutError, VerificationError
from amsc.measurement import count_macs
from amsc.structure import trace
from amsc.structure.costing import predicted_macs
from amsc.surgery import CutPlan, apply_plan, cut, cuttable, masked, plan_cut
from amsc.surgery.attributes.names import projection_role
from amsc.surgery.heads import HeadSizes, fused_cuts, head_cut, removed_mask
from surgery.nets import randomized
from surgery.plans import dims, head, plan_by_hand

WIDTH, HEADS, SIZE = 12, 4, 3


def tokens() -> Tensor:
    return torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(2))


class Separate(nn.Module):
    """Like BertSelfAttention: three projections; the layer behind the heads lies elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.num_attention_heads, self.attention_head_size, self.all_head_size = HEADS, SIZE, WIDTH
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.scaling = SIZE**-0.5

    def forward(self, x: Tensor) -> Tensor:
        shape = (*x.shape[:2], self.num_attention_heads, self.attention_head_size)
        q, k, v = (layer(x).view(shape).transpose(1, 2) for layer in (self.query, self.key, self.value))
        weights = (q @ k.transpose(-2, -1) * self.scaling).softmax(-1)
        return (weights @ v).transpose(1, 2).reshape(*x.shape[:2], self.all_head_size)


class Wrapped(nn.Module):
    """Like BertAttention."""

    def __init__(self) -> None:
        super().__init__()
        self.self = Separate()
        self.output = nn.ModuleDict({"dense": nn.Linear(WIDTH, WIDTH)})

    def forward(self, x: Tensor) -> Tensor:
        return x + self.output["dense"](self.self(x))


class Fused(nn.Module):
    """One projection to queries, keys and values: part after part as in timm, or head after head as in Bloom."""

    def __init__(self, by_head: bool) -> None:
        super().__init__()
        self.by_head, self.embed_dim, self.num_heads, self.head_dim = by_head, WIDTH, HEADS, SIZE
        self.scale = SIZE**-0.5
        self.query_key_value, self.dense = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.query_key_value(x)
        if self.by_head:
            q, k, v = qkv.view(*x.shape[:2], self.num_heads, 3, self.head_dim).unbind(3)
        else:
            q, k, v = qkv.view(*x.shape[:2], 3, self.num_heads, self.head_dim).unbind(2)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        y = functional.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.dense(y.transpose(1, 2).reshape(*x.shape[:2], self.embed_dim))


class Config(SimpleNamespace):
    """Sizes that a forward may read."""

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


class Grouped(nn.Module):
    """Like Llama's and Phi-3's: heads share keys and values, some sizes are only in the configuration."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, self.head_dim, self.scaling = config, SIZE, SIZE**-0.5
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.q_proj = nn.Linear(WIDTH, config.num_attention_heads * SIZE, bias=False)
        self.k_proj = nn.Linear(WIDTH, config.num_key_value_heads * SIZE, bias=False)
        self.v_proj = nn.Linear(WIDTH, config.num_key_value_heads * SIZE, bias=False)
        self.o_proj = nn.Linear(config.num_attention_heads * SIZE, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q = self.q_proj(x).view(*x.shape[:2], self.config.num_attention_heads, self.head_dim).transpose(1, 2)
        k, v = (p(x).view(*x.shape[:2], -1, self.head_dim).transpose(1, 2) for p in (self.k_proj, self.v_proj))
        k, v = (part.repeat_interleave(self.num_key_value_groups, 1) for part in (k, v))
        y = functional.scaled_dot_product_attention(q, k, v, scale=self.scaling)
        return self.o_proj(y.transpose(1, 2).flatten(2))


def separate_plan(model: nn.Module, gone: list[int]) -> CutPlan:
    produced = {(f"self.{role}.{key}", 0): gone for role in ("query", "key", "value") for key in ("weight", "bias")}
    return plan_by_hand(model, tokens(), produced, {("output.dense.weight", 1): gone})


@pytest.mark.parametrize(
    ("gone", "left"),
    [
        (head(1, SIZE), (3, 3, 9)),
        (dims(HEADS, SIZE, [0, 2]), (4, 1, 4)),
        (sorted({*head(3, SIZE), *dims(HEADS, SIZE, [1])}), (3, 2, 6)),
        ([0, 4, 8, 9], (4, 2, 8)),  # other positions in every head, equally many
    ],
)
def test_sizes_of_separate_projections(gone: list[int], left: tuple[int, int, int]) -> None:
    model = randomized(Wrapped()).eval()
    small = cut(model, separate_plan(model, gone), tokens())
    attention = small.get_submodule("self")
    assert (attention.num_attention_heads, attention.attention_head_size, attention.all_head_size) == left
    assert attention.scaling == SIZE**-0.5


def test_heads_of_different_sizes_do_not_pass_the_proof() -> None:
    model = randomized(Wrapped()).eval()
    with pytest.raises(VerificationError):
        cut(model, separate_plan(model, [0, 1, 3]), tokens())


@pytest.mark.parametrize("by_head", [False, True])
@pytest.mark.parametrize("kind", ["head", "dims"])
def test_sizes_of_a_fused_projection(by_head: bool, kind: str) -> None:
    model = randomized(Fused(by_head)).eval()
    where = torch.arange(3 * WIDTH)
    heads = where.view(HEADS, 3, SIZE) if by_head else where.view(3, HEADS, SIZE).transpose(0, 1)
    rows = (heads[2] if kind == "head" else heads[..., 1]).flatten().tolist()
    columns = head(2, SIZE) if kind == "head" else dims(HEADS, SIZE, [1])
    produced = {("query_key_value.weight", 0): rows, ("query_key_value.bias", 0): rows}
    plan = plan_by_hand(model, tokens(), produced, {("dense.weight", 1): columns})
    small: Any = cut(model, plan, tokens())
    assert (small.num_heads, small.head_dim, small.embed_dim) == ((3, 3, 9) if kind == "head" else (4, 2, 8))


def test_stream_that_looks_like_a_head_changes_no_number_of_heads() -> None:
    model = randomized(Fused(False)).eval()
    gone = head(0, SIZE)
    plan = plan_by_hand(
        model, tokens(), {("dense.weight", 0): gone, ("dense.bias", 0): gone}, {("query_key_value.weight", 1): gone}
    )
    small: Any = apply_plan(model, plan)
    assert (small.num_heads, small.head_dim, small.embed_dim) == (HEADS, SIZE, WIDTH)
    x = tokens()
    x[..., gone] = 0
    torch.testing.assert_close(small(x[..., SIZE:]), masked(model, plan)(x)[..., SIZE:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("whole_group", [True, False])
def test_grouped_queries_and_sizes_read_from_the_configuration(whole_group: bool) -> None:
    config = Config(num_attention_heads=4, num_key_value_heads=2, hidden_size=WIDTH)
    model = randomized(nn.Sequential(Grouped(config), Grouped(config))).eval()
    queries = [*head(2, SIZE), *head(3, SIZE)] if whole_group else [*head(0, SIZE), *head(2, SIZE)]
    produced: dict[tuple[str, int], list[int]] = {("0.q_proj.weight", 0): queries}
    if whole_group:
        produced |= {(f"0.{role}_proj.weight", 0): head(1, SIZE) for role in "kv"}
        read = {("0.o_proj.weight", 1): queries}
    else:  # a query head shares its values, so its output is zero only with the columns that read it
        produced |= {("0.o_proj.weight", 1): queries}
        read = {}
    small: Any = cut(model, plan_by_hand(model, tokens(), produced, read), tokens())
    assert small[0].num_key_value_groups == (2 if whole_group else 1)
    assert small[0].config.num_attention_heads == 2
    assert small[0].config.num_key_value_heads == (1 if whole_group else 2) or not whole_group
    assert small[1].config.num_attention_heads == 4
    assert config.num_attention_heads == 4


class Conv1D(nn.Module):
    """Like transformers': its weight is [inputs, outputs]."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight, self.bias = nn.Parameter(torch.empty(nx, nf)), nn.Parameter(torch.empty(nf))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.flatten(0, 1), self.weight).view(*x.shape[:2], self.nf)


class Norm(nn.Module):
    """Like many a library's own RMSNorm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden_size, self.normalized_shape, self.eps = width, (width,), 1e-6
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, self.normalized_shape, self.weight) if x.shape[-1] == self.hidden_size else x


class Gated(nn.Module):
    """A fused gated layer that splits by a stored width, and experts in one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_dim, self.intermediate_size, self.num_experts = WIDTH, 8, 3
        self.gate_up = Conv1D(16, WIDTH)
        self.down = Conv1D(WIDTH, 8)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).split(self.intermediate_size, -1)
        return self.down(gate.relu() * up)


class Experts(nn.Module):
    """Like Mixtral's experts."""

    def __init__(self) -> None:
        super().__init__()
        self.num_experts, self.hidden_dim, self.intermediate_dim = 3, WIDTH, 8
        self.gate_up_proj = nn.Parameter(torch.empty(3, 16, WIDTH))
        self.down_proj = nn.Parameter(torch.empty(3, WIDTH, 8))

    def forward(self, x: Tensor) -> Tensor:
        gate, up = torch.einsum("bsi,eoi->ebso", x, self.gate_up_proj).split(self.intermediate_dim, -1)
        return torch.einsum("ebsi,eoi->bso", gate.relu() * up, self.down_proj)


def test_transposed_linear_layers_and_widths_a_forward_splits_by() -> None:
    model = randomized(Gated()).eval()
    gone = [1, 5]
    both = [1, 5, 9, 13]
    plan = plan_by_hand(
        model, tokens(), {("gate_up.weight", 1): both, ("gate_up.bias", 0): both}, {("down.weight", 0): gone}
    )
    small: Any = cut(model, plan, tokens())
    assert (small.intermediate_size, small.embed_dim) == (6, WIDTH)
    assert (small.gate_up.nx, small.gate_up.nf, small.down.nx, small.down.nf) == (WIDTH, 12, 6, WIDTH)


def test_experts_in_one_tensor() -> None:
    model = randomized(Experts()).eval()
    produced = {("gate_up_proj", 1): [1, 5, 9, 13]}
    small: Any = cut(model, plan_by_hand(model, tokens(), produced, {("down_proj", 2): [1, 5]}), tokens())
    assert (small.num_experts, small.hidden_dim, small.intermediate_dim) == (3, WIDTH, 6)


def test_widths_of_unknown_modules_that_own_the_tensor() -> None:
    model = randomized(nn.Sequential(nn.Linear(4, 6), Norm(6), nn.Bilinear(6, 6, 2)))
    plan = plan_by_hand(model, torch.ones(1, 4), {("1.weight", 0): [2], ("2.weight", 1): [2], ("2.weight", 0): [1]})
    small: Any = apply_plan(model, plan)
    assert (small[1].hidden_size, small[1].normalized_shape) == (5, (5,))
    assert (small[2].out_features, small[2].in1_features, small[2].in2_features) == (1, 5, 6)


class BiasTable(nn.Module):
    """Like timm's RelPosBias: the number of heads stands in a shape."""

    def __init__(self) -> None:
        super().__init__()
        self.bias_shape = (4, 4, 4)
        self.table = nn.Parameter(torch.empty(16, 4))

    def forward(self, x: Tensor) -> Tensor:
        return x.sum() + self.table.view(self.bias_shape).sum()


def test_last_of_several_equal_sizes_is_that_of_the_channels() -> None:
    model = randomized(BiasTable()).eval()
    small: Any = cut(model, plan_by_hand(model, tokens(), {("table", 1): [2]}), tokens())
    assert small.bias_shape == (4, 4, 3)


@pytest.mark.parametrize(
    ("path", "role"),
    [
        ("self.query", "q"),
        ("attn.qkv.conv", "qkv"),
        ("query_key_value", "qkv"),
        ("Wqkv", "qkv"),
        ("c_attn", "qkv"),
        ("queries_keys_values.linear", "qkv"),
        ("to_kv", "kv"),
        ("kv_b_proj", "kv"),
        ("v_lin", "v"),
        ("SelfAttention.k", "k"),
        ("o_proj", "o"),
        ("q_norm", ""),
        ("kv_a_proj_with_mqa", ""),
        ("mlp.fc1", ""),
    ],
)
def test_roles_of_projections(path: str, role: str) -> None:
    assert projection_role(path) == role


def test_layouts_are_told_apart() -> None:
    sizes = HeadSizes(4, 2, SIZE)
    size = (4 + 2 + 2) * SIZE
    behind = [*head(2, SIZE), *head(3, SIZE), *head(5, SIZE), *head(7, SIZE)]
    beside = list(range(4 * SIZE, 8 * SIZE))
    for removed in (behind, beside):
        q, k, v = fused_cuts("qkv", removed_mask(size, removed), sizes)
        assert (q.stays, k.stays, v.stays) == ((True, True, False, False), (True, False), (True, False))
    assert fused_cuts("qkv", removed_mask(size, [0]), sizes) == ()


def test_same_number_of_positions_must_stay_in_every_head() -> None:
    assert head_cut("q", torch.tensor([[True, False], [False, False]])) is None
    assert head_cut("q", torch.ones(2, 2, dtype=torch.bool)) is None


def test_dimensions_that_one_attribute_counts_go_together() -> None:
    """Of queries and keys, and of values: each works with the other alone, so they become one group."""
    model = randomized(Wrapped()).eval()
    structure = trace(model, tokens())
    dims_of = [group for group in structure.channels if group.kind == "head_dim"]
    assert [group.size for group in dims_of] == [SIZE, SIZE]
    for group in dims_of:
        with pytest.raises(CutError):
            cut(model, plan_cut(structure, channels={group.name: [0]}), tokens())
    found = cuttable(model, structure, tokens())
    (paired,) = (group for group in found.channels if group.kind == "head_dim")
    assert paired.exact
    assert set(paired.members) == {member for group in dims_of for member in group.members}
    small = cut(model, plan_cut(found, channels={paired.name: [0]}), tokens())
    assert small.get_submodule("self").attention_head_size == SIZE - 1
    assert predicted_macs(found, {paired.name: [0]}) == count_macs(small, tokens())
