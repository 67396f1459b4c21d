"""What is recovered, what is left alone, and what stays as it was."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import amsc
from amsc.reconstruction import Reconstruction, reconstruct
from reconstruction.fits import (
    Encoder,
    Residual,
    batches,
    drawn,
    largest_difference,
    made,
    plan_of_nothing,
    with_statistics,
    without,
)


class Conv1D(nn.Module):
    """A linear layer with its weight the other way round, as in GPT-2."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs))
        self.bias = nn.Parameter(torch.randn(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        if self.bias is None:
            return x @ self.weight
        return torch.addmm(self.bias, x.flatten(0, -2), self.weight).unflatten(0, x.shape[:-1])


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(6, 5), (8, 6)),
    "linear without bias": (lambda: nn.Linear(6, 5, bias=False), (8, 3, 6)),
    "of GPT-2": (lambda: Conv1D(6, 5), (8, 3, 6)),
    "a product": (lambda: Conv1D(6, 5, bias=False), (8, 3, 6)),
    "1d": (lambda: nn.Conv1d(3, 4, 3, stride=2, padding=1), (4, 3, 11)),
    "2d, dilated": (lambda: nn.Conv2d(3, 4, 3, dilation=2, padding="same"), (3, 3, 8, 8)),
    "2d, reflecting": (lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), (3, 3, 6, 6)),
    "3d": (lambda: nn.Conv3d(2, 3, 2, bias=False), (2, 2, 4, 4, 4)),
    "groups": (lambda: nn.Conv2d(6, 4, 3, groups=2), (4, 6, 7, 7)),
    "depthwise": (lambda: nn.Conv2d(5, 5, 3, groups=5, padding=1), (4, 5, 5, 5)),
    "transposed": (lambda: nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1), (3, 3, 5, 5)),
    "transposed, groups": (lambda: nn.ConvTranspose1d(4, 6, 3, groups=2, bias=False), (3, 4, 7)),
}


def spoilt(model: nn.Module, name: str) -> nn.Module:
    """A copy in which a parameter is another one."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        parameter = other.get_parameter(name)
        parameter.add_(drawn(*parameter.shape, seed=7))
    return other


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_of_any_kind_is_found_again(name: str) -> None:
    build, shape = LAYERS[name]
    dense = made(lambda: nn.Sequential(build()))
    data = batches(*shape)
    small = spoilt(dense, "0.weight")
    found = reconstruct(small, dense, data, plan=plan_of_nothing(dense, data[0]))
    assert largest_difference(dense, small, data[0]) > 0.1
    assert largest_difference(dense, found.model, drawn(*shape, seed=99)) < 1e-8
    torch.testing.assert_close(found.model.get_parameter("0.weight"), dense.get_parameter("0.weight"))


class Windows(nn.Module):
    """Adds to its input what a layer makes of shifted windows of it, as Swin does: padded, put back, cropped."""

    def __init__(self, *, first: bool) -> None:
        super().__init__()
        self.layer, self.first = nn.Linear(3, 3), first
        self.scale = nn.Parameter(torch.tensor([0.5, 2.0, -1.0]))

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.pad(x, (0, 0, 0, 1, 0, 3)).roll((1, 1), (1, 2))
        n, height, width, _ = y.shape
        y = y.view(n, height // 4, 4, width // 2, 2, 3).transpose(2, 3).reshape(-1, 8, 3)
        y = self.scale * self.layer(y.tanh() if self.first else 2 * y.tanh() / 2)
        y = y.view(n, height // 4, width // 2, 4, 2, 3).transpose(2, 3).reshape(n, height, width, 3)
        return x + y.roll((-1, -1), (1, 2))[:, : x.shape[1], : x.shape[2]].contiguous()


def test_windows_are_followed_to_where_they_lie_in_the_stream() -> None:
    dense, data = made(lambda: nn.Sequential(Windows(first=True), Windows(first=False))), batches(4, 5, 7, 3)
    small, plan = spoilt(dense, "0.layer.weight"), plan_of_nothing(dense, data[0])
    found = reconstruct(small, dense, data, plan=plan)
    assert [(layer.name, layer.target) for layer in found.record.layers] == [("0.layer", "stream")]
    torch.testing.assert_close(found.model.get_parameter("0.layer.weight"), dense.get_parameter("0.layer.weight"))


class Overwriting(nn.Module):
    """A pre-norm attention whose output, and what it reads, are overwritten before the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(4, 4), nn.Parameter(torch.rand(4) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        u = x.sin()
        y = self.layer(u).mul_(self.scale)
        u.zero_()
        return y.add_(x)


def test_what_is_overwritten_later_was_read_before() -> None:
    dense, data = made(lambda: nn.Sequential(Overwriting())), batches(40, 4)
    small = spoilt(dense, "0.layer.weight")
    for target in ("stream", "own"):
        found = reconstruct(small, dense, data, plan=plan_of_nothing(dense, data[0]), target=target).model
        torch.testing.assert_close(found.get_parameter("0.layer.weight"), dense.get_parameter("0.layer.weight"))


def test_own_outputs_of_attention_are_met_where_they_lie_in_the_stream() -> None:
    data = batches(16, 5, 8, count=8)
    dense = made(Encoder)
    structure = amsc.trace(dense, data[0])
    heads = next(g.name for g in structure.channels if g.kind == "head" and g.name.startswith("layers.0"))
    small = amsc.cut(dense, amsc.plan_cut(structure, channels={heads: [1]}), data[0])
    found = reconstruct(small, dense, data, target="own")
    assert (found.record.layers[0].name, found.record.layers[0].target) == ("layers.0.attention.out_proj", "own")
    along = reconstruct(small, dense, data).record.layers[0]
    spread = [layer.error_before / layer.error_after for layer in (found.record.layers[0], along)]  # type: ignore[operator]
    assert spread[0] == pytest.approx(spread[1], rel=1e-6)


def test_channels_that_hardly_reach_the_stream_stay_as_they_are() -> None:
    dense, data = made(lambda: nn.Sequential(Windows(first=True), nn.Linear(3, 2))), batches(4, 5, 7, 3)
    with torch.no_grad():
        dense.get_parameter("0.scale")[1] = 1e-9
    small = spoilt(dense, "0.layer.weight")
    found = reconstruct(small, dense, data, plan=plan_of_nothing(dense, data[0])).model.get_parameter("0.layer.weight")
    torch.testing.assert_close(found[[0, 2]], dense.get_parameter("0.layer.weight")[[0, 2]])
    assert torch.equal(found[1], small.get_parameter("0.layer.weight")[1])


class Mixed(nn.Module):
    """Layers whose last channel is a mixture of the first two, and what reads them."""

    def __init__(self, first: nn.Module, then: nn.Module) -> None:
        super().__init__()
        self.first, self.then = first, then
        with torch.no_grad():
            for parameter in self.first.parameters():
                parameter[-1] = 2 * parameter[0] - 0.5 * parameter[1]

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.first(x))


MIXED: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: Mixed(nn.Linear(4, 6), nn.Linear(6, 3)), (9, 4)),
    "2d": (lambda: Mixed(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3, stride=2)), (3, 3, 9, 9)),
    "1d": (lambda: Mixed(nn.Conv1d(3, 5, 3, bias=False), nn.Conv1d(5, 4, 3, bias=False)), (3, 3, 12)),
    "transposed": (lambda: Mixed(nn.Conv2d(3, 5, 1), nn.ConvTranspose2d(5, 4, 2, stride=2)), (3, 3, 5, 5)),
}


@pytest.mark.parametrize("name", MIXED)
def test_a_channel_that_is_a_mixture_of_those_kept_is_recovered(name: str) -> None:
    build, shape = MIXED[name]
    dense, data = made(build), batches(*shape)
    with torch.no_grad():  # in double precision too
        for parameter in dense.get_submodule("first").parameters():
            parameter[-1] = 2 * parameter[0] - 0.5 * parameter[1]
    small = without(dense, data[0], "first", [len(dense.get_parameter("first.weight")) - 1])
    found = reconstruct(small, dense, data)
    assert largest_difference(dense, small, data[0]) > 1e-2
    assert largest_difference(dense, found.model, drawn(*shape, seed=99)) < 1e-7
    (layer,) = found.record.layers
    assert (layer.name, layer.target) == ("then", "own")
    assert layer.error_after is not None
    assert layer.error_after < 1e-12


def test_a_removed_block_that_is_linear_is_recovered_along_the_stream() -> None:
    data = batches(6, 3, 6, 6, count=8)
    dense = with_statistics(made(lambda: Residual(nn.Identity, nn.Identity, inner=7)), data)
    centre = torch.zeros(3, 3, dtype=torch.float64)
    centre[1, 1] = 3
    with torch.no_grad():  # kernels of one place: then the product of two of them has no more
        for conv in (conv for name, conv in dense.named_modules() if ".conv" in name):
            conv.weight.mul_(centre)
    small = amsc.cut(dense, amsc.plan_cut(amsc.trace(dense, data[0]), blocks=["blocks.0"]), data[0])
    found, fresh = reconstruct(small, dense, data, inner=False), drawn(6, 3, 6, 6, seed=50)
    assert largest_difference(dense, small, fresh) > 0.1
    assert largest_difference(dense, found.model, fresh) < 1e-7
    assert [(layer.name, layer.target) for layer in found.record.layers] == [("blocks.1.conv2", "stream")]
    own = reconstruct(small, dense, data, target="own")
    assert largest_difference(dense, own.model, fresh) > 0.01


@pytest.mark.parametrize("target", ["stream", "own"])
def test_a_cut_of_a_residual_network_costs_less_than_before(target: str) -> None:
    data = batches(8, 3, 8, 8, count=8)
    dense = with_statistics(made(lambda: Residual(nn.ReLU, nn.ReLU, nn.ReLU)), data)
    structure = amsc.trace(dense, data[0])
    plan = amsc.plan_cut(structure, channels={"blocks.0.conv1": [0, 3], "blocks.2.conv1": [1]}, blocks=["blocks.1"])
    small = amsc.cut(dense, plan, data[0])
    found, fresh = reconstruct(small, dense, data, target=target, inner=False), drawn(64, 3, 8, 8, seed=50)
    assert largest_difference(dense, found.model, fresh) < 0.7 * largest_difference(dense, small, fresh)
    names = [layer.name for layer in found.record.layers]
    assert names == ["blocks.0.conv2", "blocks.2.conv2", "head"]
    for layer in found.record.layers:
        assert layer.error_after is not None
        assert layer.error_before is not None
        assert layer.error_after <= layer.error_before


def test_inner_layers_are_refitted_where_they_are_asked_for() -> None:
    data = batches(8, 3, 8, 8, count=8)
    dense = with_statistics(made(lambda: Residual(nn.ReLU, nn.ReLU)), data)
    small = without(dense, data[0], "blocks.0.conv1", [0, 3])
    few, every = (reconstruct(small, dense, data, inner=inner).record.layers for inner in (False, True))
    assert [layer.name for layer in few] == ["blocks.0.conv2", "blocks.1.conv2", "head"]
    assert [layer.name for layer in every] == ["blocks.0.conv2", "blocks.1.conv1", "blocks.1.conv2", "head"]


def test_nothing_changes_where_nothing_was_cut() -> None:
    data = batches(8, 3, 8, 8)
    dense = with_statistics(made(lambda: Residual(nn.ReLU, nn.ReLU)), data)
    small = amsc.cut(dense, amsc.plan_cut(amsc.trace(dense, data[0]), channels={"blocks.1.conv1": [2]}), data[0])
    found = reconstruct(small, dense, data).model
    before, after = small.state_dict(), found.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.rsplit(".", 1)[0] for name in changed} == {"blocks.1.conv2", "blocks.1.bn2", "head"}
    same = reconstruct(dense, dense, data, plan=plan_of_nothing(dense, data[0]))
    assert same.record.layers == ()
    assert all(torch.equal(value, same.model.state_dict()[name]) for name, value in dense.state_dict().items())


def test_the_networks_that_were_given_are_as_they_were() -> None:
    data = batches(8, 3, 8, 8)
    dense = with_statistics(made(lambda: Residual(nn.ReLU, nn.ReLU)), data).train()
    small = without(dense, data[0], "blocks.0.conv1", [0]).train()
    known = [copy.deepcopy(model.state_dict()) for model in (small, dense)]
    state = torch.get_rng_state()
    found = reconstruct(small, dense, data)
    for model, before in zip((small, dense), known, strict=True):
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert all(module.training for module in model.modules())
    assert torch.equal(state, torch.get_rng_state())
    assert found.model.training
    assert found.model.amsc_plan == small.amsc_plan


def test_a_transformer_without_a_head_and_hidden_units() -> None:
    data = batches(16, 5, 8, count=8)
    dense = made(Encoder)
    with torch.no_grad():  # the second head is the first once more
        for name, parameter in dense.named_parameters():
            if "in_proj" in name:
                rows = parameter.unflatten(0, (3, 4, 2))
                rows[:, 1] = rows[:, 0]
    structure = amsc.trace(dense, data[0])
    heads = next(g.name for g in structure.channels if g.kind == "head" and g.name.startswith("layers.0"))
    alone = amsc.cut(dense, amsc.plan_cut(structure, channels={heads: [1]}), data[0])
    found = reconstruct(alone, dense, data)
    assert largest_difference(dense, alone, data[0]) > 1e-2
    assert largest_difference(dense, found.model, drawn(16, 5, 8, seed=50)) < 1e-7
    assert (found.record.layers[0].name, found.record.layers[0].target) == ("layers.0.attention.out_proj", "stream")
    both = amsc.cut(dense, amsc.plan_cut(structure, channels={heads: [1, 2], "layers.0.up": [0, 4, 7]}), data[0])
    found = reconstruct(both, dense, data, inner=False)
    assert [layer.name for layer in found.record.layers] == [
        *("layers.0.attention.out_proj", "layers.0.down", "layers.1.attention.out_proj", "layers.1.down", "head")
    ]
    assert largest_difference(dense, found.model, data[0]) < 0.7 * largest_difference(dense, both, data[0])


def test_wide_rows_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amsc.reconstruction.fitting.MOST_READ", 3)
    dense, data = made(lambda: nn.Sequential(nn.Linear(7, 4))), batches(30, 7)
    small = spoilt(dense, "0.weight")
    (layer,) = reconstruct(small, dense, data, plan=plan_of_nothing(dense, data[0])).record.layers
    assert layer.error_before is not None
    assert layer.error_after is not None
    assert layer.error_after < 0.1 * layer.error_before


def test_the_dense_network_runs_again_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    data = batches(8, 3, 8, 8)
    dense = with_statistics(made(lambda: Residual(nn.ReLU, nn.ReLU)), data)
    small = without(dense, data[0], "blocks.0.conv1", [0])
    ample = reconstruct(small, dense, data)
    monkeypatch.setattr("amsc.reconstruction.batches.MOST_BYTES", 1)
    short = reconstruct(small, dense, data)
    assert ample.record.layers == short.record.layers
    assert len(ample.record.layers) == 4


def test_the_record_prints_and_saves() -> None:
    dense, data = made(MIXED["linear"][0]), batches(9, 4)
    found = reconstruct(without(dense, data[0], "first", [1]), dense, data)
    assert isinstance(found, Reconstruction)
    assert repr(found).startswith("Reconstruction(1 layers refitted on 45 examples in ")
    assert "then" in str(found)
    assert amsc.records.from_json(type(found.record), found.to_json()) == found.record


def test_half_precision() -> None:
    data = [batch.to(torch.bfloat16) for batch in batches(32, 4)]
    dense = made(MIXED["linear"][0]).to(torch.bfloat16)
    small = amsc.surgery.apply_plan(dense, amsc.plan_cut(amsc.trace(dense, data[0]), channels={"first": [5]}), data[0])
    found = reconstruct(small, dense, data)
    assert found.model.get_parameter("then.weight").dtype is torch.bfloat16
    assert largest_difference(dense, found.model, data[0]) < 0.2 * largest_difference(dense, small, data[0])
