"""Which submodules are dense layers, and which channels go with them."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from amsc.records import from_json, to_json
from amsc.structure import BlockCall, OutputLeaf, Structure, select, trace
from amsc.structure.cutting import after_removal
from dense_nets import GROWTH, WIDTH, DenseNet, Inception, Single, Widening, images


def dense(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """The dense layers and the channels that go with them."""
    return {block.name: block.channels for block in trace(model.eval(), images()).blocks if block.kind == "dense"}


LAYERS = {f"stage{s}.layers.{i}": (f"stage{s}.layers.{i}.conv2",) for s in (1, 2) for i in range(3)}


@pytest.mark.parametrize("kind", ["list", "tensor", "cat"])
@pytest.mark.parametrize("normalised", [True, False])
def test_every_layer_of_a_densenet_goes_with_its_channels(kind: str, normalised: bool) -> None:
    assert dense(DenseNet(kind, normalised=normalised)) == LAYERS


@pytest.mark.parametrize(
    ("kind", "leaf"),
    [
        ("list", OutputLeaf("empty", 0, "features", ("0",), axis=1)),
        ("tensor", OutputLeaf("empty", 0, "x", axis=1)),
        ("cat", None),
    ],
)
def test_what_stands_in_is_the_input_with_no_new_channel(kind: str, leaf: OutputLeaf | None) -> None:
    call = trace(DenseNet(kind), images()).block("stage2.layers.1").call
    assert (call.leaves if isinstance(call, BlockCall) else None) == ((leaf,) if leaf else None)


def test_a_model_without_values_has_the_same() -> None:
    with torch.device("meta"):
        model = DenseNet("list")
    structure = trace(model, images().to("meta"))
    assert {block.name: block.channels for block in structure.blocks} == LAYERS
    assert from_json(Structure, to_json(structure)) == structure


def test_where_dense_layers_are_all_there_is_the_last_one_stays() -> None:
    assert list(dense(Inception())) == ["branches.0", "branches.1"]


def summed(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] + parts[1] + parts[2]


class Depthwise(Inception):
    """A depthwise convolution outside makes the channels anew."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.joined = lambda parts: self.depth(torch.cat(list(parts), 1))


class Visible(Inception):
    """Returns the new channels too."""

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.stem(x))
        parts = [branch(x) for branch in self.branches]
        return self.last(torch.cat(parts, 1)), parts[0]


class OtherConstant(Inception):
    """Its reader mixes the new channels with the others: the mean of all does not stay."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.last(F.layer_norm(torch.cat([branch(x) for branch in self.branches], 1), (12, 8, 8)))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Inception(summed, GROWTH), []),
        (nn.Sequential(nn.Conv2d(3, WIDTH, 1), Single(WIDTH, 6), nn.Conv2d(6, 5, 1)), []),
        (Depthwise(), []),
        (Visible(), ["branches.1", "branches.2"]),
        (OtherConstant(), []),
        (nn.Sequential(nn.Conv2d(3, WIDTH, 1), Widening(WIDTH)), []),
    ],
    ids=["summed", "only reader", "depthwise", "visible", "layer norm", "output"],
)
def test_other_modules_that_make_channels_are_none(model: nn.Module, expected: list[str]) -> None:
    assert list(dense(model)) == expected


def test_channels_that_are_kept_keep_their_layer() -> None:
    structure = trace(DenseNet("list"), images())
    for glob, lost in (("stage1.layers.1.conv2", {"stage1.layers.1"}), ("transition.weight", set(list(LAYERS)[:3]))):
        kept = {block.name for block in select(structure, keep=[glob]).blocks}
        assert LAYERS.keys() - kept == lost
    only = select(structure, only=["stage2.layers.2"])
    assert [block.name for block in only.blocks] == ["stage2.layers.2"]


def test_what_is_left_after_a_layer_is_known() -> None:
    structure = trace(DenseNet("list"), images())
    small = after_removal(structure, {"stem": [0]}, ["stage1.layers.1"])
    assert "stage1.layers.1.conv2" not in {group.name for group in small.channels}
    assert small.shapes["stage1.layers.2.norm1.weight"] == (WIDTH - 1 + GROWTH,)
    assert small.shapes["transition.weight"] == (10, WIDTH - 1 + 2 * GROWTH, 1, 1)
    assert [block.name for block in small.blocks] == [name for name in LAYERS if name != "stage1.layers.1"]
    again = after_removal(small, {}, ["stage1.layers.0", "stage1.layers.2"])
    assert again == after_removal(structure, {"stem": [0]}, [f"stage1.layers.{i}" for i in range(3)])
