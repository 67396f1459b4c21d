"""Groups that meet a constant of the user's forward are found by trying, and the others stay removable."""

import pytest
import torch
from torch import Tensor, nn

from amsc.errors import CutError
from amsc.structure import trace
from amsc.surgery import cut, cuttable, plan_cut
from blocks_nets import Decoder, rows


class Constant(nn.Module):
    """A convolution that can be cut, one before a reshape to a written size, and a linear layer that can be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, 3, padding=1)
        self.pool, self.hidden, self.head = nn.AvgPool2d(4), nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.second(self.first(x).relu()).relu()).contiguous().view(-1, 16)
        return self.head(self.hidden(x).relu())


def test_the_group_before_a_written_size_is_found_and_the_others_are_left() -> None:
    model, inputs = Constant(), torch.randn(2, 3, 8, 8)
    structure = cuttable(model, trace(model, inputs), inputs)
    assert {group.name: group.exact for group in structure.channels} == {"first": True, "second": False, "hidden": True}
    assert "the cut model fails" in structure.group("second").reason
    assert cut(model, plan_cut(structure, channels={"first": [1], "hidden": [2, 3]}), inputs)
    with pytest.raises(CutError, match="second"):
        plan_cut(structure, channels={"second": [0]})


def test_a_structure_that_can_be_cut_is_returned_as_it_is() -> None:
    model, inputs = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 2, 3)), torch.randn(1, 3, 8, 8)
    structure = trace(model, inputs)
    assert cuttable(model, structure, inputs) is structure


class ReadsInside(nn.Module):
    """Reads a weight of a branch, which no stand-in has."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = Decoder("none", "mask", num_layers=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(x) * self.decoder.layers[0].mlp.up.weight.shape[0]


def test_a_branch_that_must_stay_is_found_with_its_layer() -> None:
    model = ReadsInside()
    structure = trace(model, rows())
    left = {block.name for block in cuttable(model, structure, rows()).blocks}
    stuck = {"decoder.layers.0", "decoder.layers.0.mlp"}
    assert left == {block.name for block in structure.blocks} - stuck
