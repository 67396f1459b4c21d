"""Depth at equal cost: networks at the target, judged; and the walk that begins with the best of them."""

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from amsc.errors import TargetError
from amsc.reconstruction import reconstruct
from amsc.structure import Structure
from amsc.structure.costing import predicted_cost, predicted_macs
from amsc.surgery import plan_cut, stand_in
from amsc.training import Removal, Shrunk, Trail, WalkSettings, evaluate, walk
from amsc.training.gates.scan_gates import find_gates
from amsc.training.path import equal_cost
from amsc.training.path.equal_cost import EqualCost, depth_at_equal_cost
from amsc.training.removal.to_cost import lowest_cost
from amsc.training.steps.optimizers import OptimizerChoice
from training.small import TASK, same_tensors, shrink, small_data

DATA = small_data()
SETTINGS = WalkSettings(epochs=2, points=2, optimizer=OptimizerChoice(0.05), depth_rule="equal-cost", reconstruction=32)


def repair(
    cut: Shrunk,
    before: nn.Module,
    structure: Structure,
    removal: Removal,
    examples: int,
    *,
    layers: int | None = None,
) -> Shrunk:
    plan = plan_cut(structure, channels=removal.channels, blocks=removal.blocks)
    found = reconstruct(cut.model, before, DATA, plan=plan, examples=examples, layers=layers)
    return replace(cut, model=found.model, repaired=replace(found.record, seconds=None))


def trail_of(dense: nn.Module, structure: Structure, **changes: Any) -> Trail:
    return Trail(dense, structure, DATA, TASK, shrink, replace(SETTINGS, **changes), repair)


@pytest.fixture(scope="module")
def found(dense: nn.Module, structure: Structure) -> EqualCost:
    return depth_at_equal_cost(trail_of(dense, structure), int(0.6 * predicted_macs(structure)), stand_in)


def test_every_candidate_is_at_the_target_and_has_other_blocks(structure: Structure, found: EqualCost) -> None:
    assert len(found.candidates) > 1
    gone = [set(one.thinned.removal.blocks) for one in found.candidates]
    assert all(fewer < more for fewer, more in pairwise(gone))
    for one, row in zip(found.candidates, found.rows(), strict=True):
        removal = one.narrowed.removal
        assert row.macs == predicted_macs(structure, removal.channels, removal.blocks)
        assert 0.9 < row.macs / (0.6 * predicted_macs(structure)) <= 1
        assert evaluate(one.narrowed.live.model, DATA, "validation", TASK).score == row.score


def test_of_those_as_good_as_the_best_the_one_with_the_fewest_blocks_is_chosen(found: EqualCost) -> None:
    best = max(one.judged.score for one in found.candidates)
    assert best - found.chosen.judged.score < 0.05
    for one in found.candidates:
        if one.num_blocks > found.chosen.num_blocks:
            assert one.judged.score < best


def test_channels_of_thinned_networks_are_whole(structure: Structure, found: EqualCost) -> None:
    for one in found.candidates:
        assert not one.thinned.removal.channels
        assert one.thinned.removal.blocks == one.narrowed.removal.blocks
        assert one.num_blocks == len(structure.outer_blocks) - len(one.thinned.live.structure.outer_blocks)


def test_what_channels_alone_do_not_reach_is_reached_with_fewer_blocks(dense: nn.Module, structure: Structure) -> None:
    lowest = lowest_cost(structure, find_gates(structure, dense)[1].channels)
    found = depth_at_equal_cost(trail_of(dense, structure), lowest - 1, stand_in)
    assert min(one.num_blocks for one in found.candidates) > 0
    assert all(predicted_cost(one.narrowed.live.structure) < lowest for one in found.candidates)
    with pytest.raises(TargetError, match="cannot be reached; the lowest is"):
        depth_at_equal_cost(trail_of(dense, structure), 1, stand_in)


@pytest.mark.parametrize(("share", "gone"), [(0.9, 1), (0.7, 2), (0.6, 3)])
def test_where_no_channel_can_go_blocks_take_the_cost_below_the_target(
    dense: nn.Module, structure: Structure, share: float, gone: int
) -> None:
    kept = tuple(replace(group, removable=False) for group in structure.channels)
    blocks_alone, target = replace(structure, channels=kept), int(share * predicted_cost(structure))
    found = depth_at_equal_cost(trail_of(dense, blocks_alone), target, stand_in)
    assert found.chosen.num_blocks == gone
    assert all(predicted_cost(one.narrowed.live.structure) <= target for one in found.candidates)


@pytest.mark.parametrize(("peak", "last", "most"), [(0, 20, 3), (1, 20, 4), (3, 20, 6), (6, 20, 7), (12, 12, 7)])
def test_few_numbers_of_blocks_are_tried(
    peak: int, last: int, most: int, structure: Structure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores that rise up to a number of blocks and fall behind it: that number is found in a few steps."""
    search = equal_cost._Search.__new__(equal_cost._Search)
    search._trail, search._target_cost, search._found = SimpleNamespace(task=TASK), 1, {}
    search._near, told = None, list[dict[str, float]]()
    search._tell = lambda **values: told.append(values)
    search._thinning = SimpleNamespace(without=lambda number, _, tell: SimpleNamespace(number=min(number, last)))
    monkeypatch.setattr(search, "_fewest", lambda: 0)
    monkeypatch.setattr(search, "_most", lambda number: min(number, last))

    def candidate(thinned: Any) -> Any:
        worth = -torch.tensor([abs(thinned.number - peak)]).double()
        score = float(worth.mean())
        return SimpleNamespace(
            number=thinned.number, worth=lambda _: worth, judged=SimpleNamespace(score=score), structure=structure
        )

    search.making = SimpleNamespace(candidate=candidate)
    tried = [one.number for one in search.candidates()]
    assert min(abs(number - peak) for number in tried) <= peak // 4
    assert len(tried) <= most
    assert [values["judged"] for values in told] == list(range(1, len(tried) + 1))


def walked(dense: nn.Module, structure: Structure, **changes: Any) -> list[Any]:
    trail = trail_of(dense, structure, **changes)
    target = int(0.6 * predicted_cost(structure))
    return list(
        walk(
            dense,
            structure,
            DATA,
            TASK,
            shrink=shrink,
            target_cost=target,
            settings=trail.settings,
            repair=repair,
            stand_in=stand_in,
        )
    )


def test_without_training_the_walk_ends_with_the_best_candidate(dense: nn.Module, structure: Structure) -> None:
    [(point, snapshot, state)] = walked(dense, structure, epochs=0, points=1)
    [(again, same, _)] = walked(dense, structure, epochs=0, points=1)
    assert state.phase == "done"
    assert (point.phase, point.epochs) == ("depth", 0)
    assert point == again
    assert same_tensors(snapshot.weights, same.weights)
    assert point.score == {row.removed_blocks: row.score for row in point.candidates}[point.removed_blocks]
    assert point.repaired is not None
    assert any(layer.ridge is not None for layer in point.repaired.layers)
    small = trail_of(dense, structure).rebuild(snapshot)
    assert evaluate(small.model, DATA, "validation", TASK).score == point.score


def test_without_training_the_path_is_a_ladder_of_networks_at_equal_shares(
    dense: nn.Module, structure: Structure
) -> None:
    whole, target = predicted_cost(structure), int(0.4 * predicted_cost(structure))
    trail = trail_of(dense, structure, epochs=0, points=3)
    more: dict[str, Any] = {"shrink": shrink, "target_cost": target, "settings": trail.settings, "repair": repair}

    def points(state: Any = None) -> list[Any]:
        return list(walk(dense, structure, DATA, TASK, **more, stand_in=stand_in, state=state))

    ladder = points()
    assert [state.phase for _, _, state in ladder] == ["depth", "depth", "done"]
    assert [point.index for point, _, _ in ladder] == [0, 1, 2]
    for number, (point, _, _) in enumerate(ladder, 1):
        assert 0.9 < point.macs / (whole * 0.4 ** (number / 3)) <= 1.0001
        assert (point.phase, point.epochs) == ("depth", 0)
    again = points(ladder[0][2])  # from where it was left: the same blocks in the same order, the same weights
    assert [point for point, _, _ in again] == [point for point, _, _ in ladder[1:]]
    assert all(same_tensors(one[1].weights, other[1].weights) for one, other in zip(again, ladder[1:], strict=True))
    alone = depth_at_equal_cost(trail_of(dense, structure), target, stand_in)
    assert alone.chosen.judged.score == ladder[-1][0].score  # the last rung is searched as if there were no others


def test_with_training_the_walk_goes_on_without_those_blocks(dense: nn.Module, structure: Structure) -> None:
    steps = walked(dense, structure)
    assert [point.phase for point, _, _ in steps] == ["depth", "width", "width"]
    blocks = [point.removed_blocks for point, _, _ in steps]
    assert blocks[0] == blocks[1]
    assert steps[-1][0].macs <= int(0.6 * predicted_macs(structure))


@pytest.mark.parametrize("method", ["proximal", "gates"])
def test_cuts_of_a_path_are_repaired(dense: nn.Module, structure: Structure, method: str) -> None:
    steps = walked(dense, structure, method=method, depth_rule="share", epochs=0.2, points=1)
    assert any(point.repaired and any(one.ridge is not None for one in point.repaired.layers) for point, _, _ in steps)
