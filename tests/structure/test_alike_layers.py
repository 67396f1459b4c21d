"""Alike layers are found by their names, and tied groups lose as many channels as each other."""

import random

import pytest
import torch
from torch import Tensor, nn

from amsc.structure import Rounding, select, stacks, trace, uniform, whole_layers
from amsc.structure.costing import predicted_macs
from amsc.training.removal.bunches import bunches, choose_channels
from amsc.training.removal.removed import channel_map


class Layer(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(x)))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = Layer(6, 12)
        self.layers = nn.Sequential(Layer(6, 12), Layer(6, 12), Layer(6, 10))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.first(x)))


STRUCTURE = trace(Net(), torch.randn(2, 6))
ALIKE = ("layers.0.up", "layers.1.up")


def test_groups_in_the_same_place_of_layers_of_one_size_are_a_stack() -> None:
    assert stacks(STRUCTURE) == (ALIKE,)


def test_only_layers_of_a_list_go_whole() -> None:
    assert [[block.name for block in blocks] for blocks in whole_layers(STRUCTURE)] == [
        ["layers.0", "layers.1", "layers.2"]
    ]
    assert {block.name for block in STRUCTURE.blocks} == {"first", "layers.0", "layers.1", "layers.2"}
    assert {block.name for block in uniform(STRUCTURE).blocks} == {"layers.0", "layers.1", "layers.2"}


def test_all_of_a_stack_stay_where_one_must() -> None:
    kept = uniform(select(STRUCTURE, keep=["layers.1.up"]))
    assert [group.name for group in kept.channels if group.removable] == ["first.up", "layers.2.up"]
    assert kept.group("layers.0.up").reason.startswith("uniform: layers.1.up stays (keep = ")


def test_tied_groups_lose_as_many_channels() -> None:
    ranking = [("layers.0.up", index) for index in (3, 1, 4)] + [("first.up", 0)]
    ranking += [("layers.1.up", index) for index in (5, 2)]
    found = list(bunches(STRUCTURE, ranking, Rounding(ties=(ALIKE,))))
    assert found == [
        (("first.up", 0),),
        (("layers.0.up", 3), ("layers.1.up", 5)),
        (("layers.0.up", 1), ("layers.1.up", 2)),
    ]
    by_two = list(bunches(STRUCTURE, ranking, Rounding(2, ties=(ALIKE,))))
    assert by_two == [(("layers.0.up", 3), ("layers.0.up", 1), ("layers.1.up", 5), ("layers.1.up", 2))]


def test_a_group_whose_fellow_is_gone_is_on_its_own() -> None:
    rounding = Rounding(ties=(ALIKE,))
    assert rounding.tied(["layers.0.up", "first.up"]) == {"layers.0.up": ("layers.0.up",), "first.up": ("first.up",)}
    assert rounding.tied(ALIKE) == dict.fromkeys(ALIKE, ALIKE)


@pytest.mark.parametrize("seed", range(5))
def test_a_cost_is_met_with_alike_layers(seed: int) -> None:
    model = nn.Sequential(*(Layer(16, 48) for _ in range(4)))
    structure = trace(model, torch.randn(2, 16))
    ranking = [(group.name, index) for group in structure.channels if group.kind != "stream" for index in range(48)]
    random.Random(seed).shuffle(ranking)
    rounding = Rounding(8, gives_way=True, ties=stacks(structure))
    target = int(0.55 * predicted_macs(structure))
    gone = channel_map(choose_channels(structure, ranking, target, rounding=rounding))
    assert len(gone) == 4
    assert len({len(indices) for indices in gone.values()}) == 1
    assert 0.5 * predicted_macs(structure) < predicted_macs(structure, gone) <= target
