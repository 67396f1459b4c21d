"""Which submodules are blocks, by what they return with their parameters at zero."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from amsc.errors import InputError
from amsc.records import from_json, to_json
from amsc.structure import Block, OutputLeaf, Structure, trace
from amsc.structure.cutting import after_removal
from blocks_nets import (
    SIZE,
    Branches,
    Decoder,
    InPlace,
    Lent,
    Mlp,
    PostNorm,
    Residual,
    Shared,
    TupleLayer,
    Twice,
    rows,
)


def found(model: nn.Module, inputs: Any = None) -> dict[str, Block]:
    blocks = trace(model, rows() if inputs is None else inputs).blocks
    return {block.name: replace(block, parameters=(), macs=0) for block in blocks}


def kinds(model: nn.Module, inputs: Any = None) -> dict[str, str]:
    return {name: block.kind for name, block in found(model, inputs).items()}


HIDDEN, NONE = OutputLeaf("input", 0, "hidden"), OutputLeaf("constant")
LAYER = {"": "identity", ".attention": "branch", ".mlp": "branch"}
THREE_LAYERS = {f"layers.{i}{inner}": kind for i in range(3) for inner, kind in LAYER.items()}


@pytest.mark.parametrize(
    ("style", "call", "leaves"),
    [
        ("tensor", "mask", (HIDDEN,)),
        ("tensor", "plain", (HIDDEN,)),
        ("none", "keywords", (HIDDEN, NONE)),
        ("none", "cache", (HIDDEN, NONE)),
        ("bias", "keywords", (HIDDEN, OutputLeaf("input", -1, "bias"), OutputLeaf("constant", constant=3))),
        ("bias", "mask", (HIDDEN, NONE, OutputLeaf("constant", constant=3))),
        ("cache", "cache", (HIDDEN, OutputLeaf("input", -1, "cache"))),
        ("dict", "mask", (HIDDEN, OutputLeaf("input", 1, "mask"))),
        ("aux", "mask", (HIDDEN, OutputLeaf("zero", 0, "hidden"))),
    ],
)
def test_layers_of_any_signature_and_their_branches_are_found(
    style: str, call: str, leaves: tuple[OutputLeaf, ...]
) -> None:
    blocks = found(Decoder(style, call))
    assert {name: block.kind for name, block in blocks.items()} == THREE_LAYERS
    for index in range(3):
        assert blocks[f"layers.{index}"].call is not None
        assert blocks[f"layers.{index}"].call.leaves == leaves
        attention = blocks[f"layers.{index}.attention"].call
        assert attention is not None
        assert attention.leaves == (OutputLeaf("zeros", 0, "hidden"), NONE)


def test_an_output_that_cannot_be_made_again_is_no_block() -> None:
    assert kinds(Decoder("rows", "mask")) == {n: k for n, k in THREE_LAYERS.items() if k == "branch"}


def test_one_tensor_in_and_out_needs_no_call() -> None:
    model = nn.Sequential(Residual(Mlp()), nn.Linear(SIZE, SIZE))
    assert found(model) == {"0": Block("0", (), 0)}


class Pairs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(TupleLayer(), TupleLayer())

    def forward(self, x: Tensor) -> Tensor:
        return self.layers((x, x + 1))[0]


class OneConvolution(nn.Module):
    """x + last(middle(first(x))), where the middle is wrapped: it alone can be silent, but is no branch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(SIZE, SIZE), nn.Linear(SIZE, SIZE)
        self.middle = nn.Sequential(nn.Linear(SIZE, SIZE), nn.ReLU(), nn.Linear(SIZE, SIZE))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(self.middle(self.first(x)))


class Autoencoder(nn.Module):
    """Residual blocks, all inside one long branch of the network."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(*(Residual(Mlp()) for _ in range(3)), nn.Linear(SIZE, SIZE))
        self.head = nn.Linear(SIZE, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x + self.body(x))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Pairs(), {"layers.0": "identity", "layers.1": "identity"}),
        (nn.Sequential(PostNorm(), nn.Linear(SIZE, SIZE)), {"0.attention": "branch"}),
        (Branches(), {"one": "branch", "two": "branch"}),
        (Twice(), {"once": "identity"}),
        (Shared(), {"c": "identity"}),
        (Lent(), {"b": "identity", "c": "identity"}),
        (nn.Sequential(InPlace(), nn.Linear(SIZE, 2)), {"0.mlp": "branch"}),
        (Mlp(), {}),
        (nn.Sequential(Mlp(), Mlp()), {}),
        (nn.Sequential(OneConvolution(), nn.Linear(SIZE, 2)), {"0": "identity"}),
        (nn.Sequential(Residual(Residual(Mlp())), nn.Linear(SIZE, 2)), ["0.inner"]),
        (nn.Sequential(nn.Sequential(Residual(Mlp()), Residual(Mlp())), nn.Linear(SIZE, 2)), ["0.0", "0.1"]),
        (Autoencoder(), {f"body.{i}": "identity" for i in range(3)}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_table_of_behaviours(model: nn.Module, expected: Any) -> None:
    expected = expected if isinstance(expected, dict) else dict.fromkeys(expected, "identity")
    assert kinds(model) == expected


class Sum(nn.Module):
    """The identity only where its input is not negative."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = Mlp()

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.mlp(x)).relu()


def test_modules_of_one_kind_that_get_inputs_of_another_range_are_tried_again() -> None:
    assert kinds(nn.Sequential(Sum(), Sum(), nn.Linear(SIZE, 2))) == {"0.mlp": "branch", "1": "identity"}
    assert kinds(nn.Sequential(nn.ReLU(), Sum(), Sum())) == {"1": "identity", "2": "identity"}


def test_an_attribute_tells_modules_of_one_class_apart() -> None:
    class Sometimes(nn.Module):
        def __init__(self, *, adds: bool) -> None:
            super().__init__()
            self.adds, self.mlp = adds, Mlp()

        def forward(self, x: Tensor) -> Tensor:
            return x + self.mlp(x) if self.adds else self.mlp(x)

    model = nn.Sequential(*(Sometimes(adds=adds) for adds in (False, True, False, True)))
    assert kinds(model) == {"1": "identity", "3": "identity"}


def test_the_network_runs_once() -> None:
    calls: list[int] = []
    model = Decoder("tensor", "mask", num_layers=20)
    for layer in model.layers:
        layer.register_forward_hook(lambda *_: calls.append(1))
    found(model)
    assert len(calls) == 20


def test_the_model_comes_back_as_it_was() -> None:
    model = Decoder("none", "cache").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found(model)
    assert model.layers[0].training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    with pytest.raises(InputError):
        trace(model, torch.zeros(2, 2))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("style", ["tensor", "none"])
def test_blocks_of_a_model_without_weights_are_found_on_a_copy(style: str) -> None:
    with torch.device("meta"):
        model = Decoder(style, "mask")
    assert kinds(model, rows().to("meta")) == THREE_LAYERS
    assert all(parameter.is_meta for parameter in model.parameters())


def test_neither_statistics_nor_other_buffers_need_values() -> None:
    class Normed(nn.Module):
        def __init__(self, *, has_buffer: bool) -> None:
            super().__init__()
            self.linear, self.norm = nn.Linear(SIZE, SIZE), nn.BatchNorm1d(5)
            self.register_buffer("table", torch.ones(SIZE) if has_buffer else None)

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(self.linear(x))
            return x + (y if self.table is None else y * self.table)

    with torch.device("meta"):
        model = nn.Sequential(Normed(has_buffer=False), Normed(has_buffer=True))
    assert kinds(model, rows().to("meta")) == {"0": "identity", "1": "identity"}


def test_outer_blocks_share_no_parameter_and_all_survive_json() -> None:
    structure = trace(Decoder("none", "keywords"), rows())
    assert [block.name for block in structure.outer_blocks] == ["layers.0", "layers.1", "layers.2"]
    assert structure.block("layers.0.mlp").macs > 0
    assert set(structure.block("layers.0.mlp").parameters) < set(structure.block("layers.0").parameters)
    assert from_json(Structure, to_json(structure)) == structure


def test_a_branch_that_is_gone_is_no_longer_counted_in_its_layer() -> None:
    structure = trace(Decoder("none", "keywords"), rows())
    small = after_removal(structure, {}, ["layers.0.mlp", "layers.1"])
    assert [block.name for block in small.blocks] == [
        "layers.0",
        "layers.0.attention",
        "layers.2",
        "layers.2.attention",
        "layers.2.mlp",
    ]
    gone = structure.block("layers.0.mlp")
    assert small.block("layers.0").macs == structure.block("layers.0").macs - gone.macs
    assert set(small.block("layers.0").parameters).isdisjoint(gone.parameters)
