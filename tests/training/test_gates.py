"""The gate path: it meets its budget step by step, goes on after a stop, and cuts what the loss depends on least."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from amsc.errors import TargetError
from amsc.penalty import Penalty
from amsc.structure import Structure
from amsc.training import WalkSettings, rebuild, walk, walk_state_from_plain, walk_state_to_plain
from amsc.training.gates import cheapest_blocks, cheapest_channels
from amsc.training.selection import lowest_cost
from training.small import TASK, same_tensors, shrink, small_data, traced, trained_net

DATA = small_data()
SETTINGS = WalkSettings(method="gates", epochs=4, points=4, learning_rate=0.05, depth_rule="share")


@pytest.fixture(scope="module")
def dense() -> nn.Module:
    return trained_net(DATA)


@pytest.fixture(scope="module")
def structure(dense: nn.Module) -> Structure:
    return traced(dense, DATA)


def gate_path(dense: nn.Module, structure: Structure, macs: float = 0.5, **options: object) -> Iterator[tuple]:
    target = int(macs * structure.macs())
    settings = replace(SETTINGS, **options.pop("settings", {}))  # type: ignore[arg-type]
    return walk(dense, structure, DATA, TASK, shrink=shrink, target_cost=target, settings=settings, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("macs", [0.4, 0.7])
@pytest.mark.parametrize("share", [0.0, 0.6])
def test_every_piece_keeps_to_the_plan(dense: nn.Module, structure: Structure, macs: float, share: float) -> None:
    steps = list(gate_path(dense, structure, macs, settings={"depth_share": share, "epochs": 1}))
    left = [point.macs / structure.macs() for point, _, _ in steps]
    assert 0.99 * macs <= left[-1] <= macs
    if share == 0:
        planned = [1 - (1 - macs) * (piece + 1) / len(left) for piece in range(len(left))]
        assert left == pytest.approx(planned, abs=0.06)
        assert not steps[-1][0].removed_blocks
    else:
        assert steps[-1][0].removed_blocks
        assert all(after < before for before, after in pairwise(left))


def test_it_goes_on_identically_after_a_stop(dense: nn.Module, structure: Structure) -> None:
    steps = list(gate_path(dense, structure))
    saved = walk_state_from_plain(walk_state_to_plain(steps[1][2]))
    again = list(gate_path(dense, structure, state=saved))
    assert [point for point, _, _ in again] == [point for point, _, _ in steps[2:]]
    assert same_tensors(again[-1][1].weights, steps[-1][1].weights)
    assert same_tensors(again[-1][1].momentum, steps[-1][1].momentum)
    small = rebuild(dense, structure, shrink, steps[-1][1])
    assert small.structure.macs() == steps[-1][0].macs


def test_the_cheapest_for_what_they_save_go_first(dense: nn.Module, structure: Structure) -> None:
    penalty = Penalty(structure, dense)
    leaves, blocks = torch.ones(len(penalty.channels)), torch.ones(len(penalty.blocks))
    name = penalty.channels[5][0]
    leaves[5], blocks[1] = 0.0, 0.0
    removal = cheapest_channels(structure, penalty, (leaves, blocks), int(0.9 * structure.macs()))
    assert penalty.channels[5][1] in removal.channels[name]
    assert cheapest_blocks(structure, penalty, blocks, int(0.8 * structure.macs())).blocks == (penalty.blocks[1],)
    assert not cheapest_channels(structure, penalty, (leaves, blocks), structure.macs())


def test_blocks_go_where_channels_are_not_enough_and_no_more_than_there_is(
    dense: nn.Module, structure: Structure
) -> None:
    penalty = Penalty(structure, dense)
    sensitivities = torch.rand(len(penalty.channels)), torch.rand(len(penalty.blocks))
    floor = lowest_cost(structure, penalty.channels)
    removal = cheapest_channels(structure, penalty, sensitivities, int(0.95 * floor))
    assert removal.blocks
    with pytest.raises(TargetError, match="the lowest is"):
        cheapest_channels(structure, penalty, sensitivities, 1000)
