"""Composed removals in the dense network's numbers, and the choice of channels for a budget."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from amsc.structure import Rounding, Structure, trace
from amsc.structure.costing import channel_macs, predicted_macs
from amsc.structure.cutting import after_removal
from amsc.training import Removal
from amsc.training.removal.bunches import bunches, choose_channels, sparing_last
from amsc.training.removal.removed import channel_map, compose_removals
from amsc.training.removal.to_cost import lowest_cost
from training.small import small_data, small_net, traced

STRUCTURE = traced(small_net(), small_data())
LEAVES = [(group.name, index) for group in STRUCTURE.channels if group.kind != "stream" for index in range(group.size)]


def _random_removal(structure: Structure, chooser: random.Random) -> Removal:
    blocks = tuple(block.name for block in structure.blocks if chooser.random() < 0.3)
    left = after_removal(structure, {}, blocks)
    groups = [group for group in left.channels if group.kind != "stream" and chooser.random() < 0.7]
    channels = {
        group.name: tuple(sorted(chooser.sample(range(group.size), chooser.randint(0, group.size - 1))))
        for group in groups
    }
    return Removal(blocks, {name: indices for name, indices in channels.items() if indices})


@given(st.integers(0, 2**32))
def test_two_cuts_cost_what_their_composition_costs_and_leave_the_same_channels(seed: int) -> None:
    chooser = random.Random(seed)
    first = _random_removal(STRUCTURE, chooser)
    middle = after_removal(STRUCTURE, first.channels, first.blocks)
    second = _random_removal(middle, chooser)
    whole = compose_removals(STRUCTURE, first, second)
    after = after_removal(middle, second.channels, second.blocks)
    assert after_removal(STRUCTURE, whole.channels, whole.blocks) == after
    assert predicted_macs(STRUCTURE, whole.channels, whole.blocks) == predicted_macs(after)


def test_indices_of_the_second_cut_count_what_the_first_left() -> None:
    name = LEAVES[0][0]
    whole = compose_removals(STRUCTURE, Removal((), {name: (0, 2, 5)}), Removal((), {name: (0, 2)}))
    assert whole.channels == {name: (0, 1, 2, 4, 5)}


def test_channels_of_a_removed_block_are_no_longer_listed() -> None:
    block = STRUCTURE.blocks[0].name
    inside = next(name for name, _ in LEAVES if name.startswith(block))
    assert compose_removals(STRUCTURE, Removal((), {inside: (1,)}), Removal((block,), {})) == Removal((block,), {})


def test_the_last_channel_of_a_group_is_spared() -> None:
    kept = set(LEAVES) - set(sparing_last(STRUCTURE, LEAVES))
    assert kept == {(name, STRUCTURE.group(name).size - 1) for name, _ in LEAVES}
    assert list(sparing_last(STRUCTURE, [("no such group", 0)])) == []


@pytest.mark.parametrize("seed", range(12))
def test_a_target_is_met_to_the_smallest_channel_by_the_cheapest(seed: int) -> None:
    chooser = random.Random(seed)
    ranking = chooser.sample(LEAVES, len(LEAVES))
    target = int(chooser.uniform(0.3, 0.95) * predicted_macs(STRUCTURE))
    chosen = choose_channels(STRUCTURE, ranking, target)
    macs = predicted_macs(STRUCTURE, channel_map(chosen))
    smallest = min(channel_macs(STRUCTURE, name) for name, _ in LEAVES)
    assert target - max(0.01 * target, smallest) <= macs <= target
    assert len(set(chosen)) == len(chosen)
    prefix = list(sparing_last(STRUCTURE, ranking))
    while prefix and predicted_macs(STRUCTURE, channel_map(prefix[:-1])) <= target:
        prefix.pop()
    assert len(set(prefix) - set(chosen)) <= 0.2 * len(prefix) + 1, "most of the cheapest go"


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("to", "least"), [(4, 1), (8, 1), (3, 5)])
def test_a_target_is_met_in_multiples_and_the_dearest_stay(seed: int, to: int, least: int) -> None:
    chooser, rounding = random.Random(seed), Rounding(to, least)
    ranking = chooser.sample(LEAVES, len(LEAVES))
    lowest, dense = (
        predicted_macs(STRUCTURE, channel_map(sparing_last(STRUCTURE, LEAVES, rounding))),
        predicted_macs(STRUCTURE),
    )
    target = int(lowest + chooser.uniform(0.0, 0.95) * (dense - lowest))
    chosen = choose_channels(STRUCTURE, ranking, target, rounding=rounding)
    channels = channel_map(chosen)
    assert predicted_macs(STRUCTURE, channels) <= target
    for name, going in channels.items():
        size = STRUCTURE.group(name).size
        left = size - len(going)
        assert left % to == 0
        assert left >= least
        of_group = [index for other, index in ranking if other == name]
        assert sorted(of_group[: len(going)]) == list(going), "the cheapest of the group go"
        one_less = {**channels, name: sorted(of_group[: size - min(size, left + to)])}
        assert predicted_macs(STRUCTURE, one_less) > target, "none goes without need"


@pytest.mark.parametrize("seed", range(12))
def test_rounding_that_gives_way_meets_a_target_as_nearly_as_none(seed: int) -> None:
    chooser, auto = random.Random(seed), Rounding(8, gives_way=True)
    ranking = chooser.sample(LEAVES, len(LEAVES))
    lowest, dense = predicted_macs(STRUCTURE, channel_map(sparing_last(STRUCTURE, LEAVES))), predicted_macs(STRUCTURE)
    assert lowest_cost(STRUCTURE, LEAVES, auto) == lowest
    target = int(lowest + chooser.uniform(0.0, 0.95) * (dense - lowest))
    channels = channel_map(choose_channels(STRUCTURE, ranking, target, rounding=auto))
    macs, smallest = predicted_macs(STRUCTURE, channels), min(channel_macs(STRUCTURE, name) for name, _ in LEAVES)
    assert target - max(0.01 * target, smallest) <= macs <= target
    odd = [name for name, gone in channels.items() if not _is_liked(name, len(gone))]
    assert len(odd) <= 2, "few groups have another number, and only where the target asks for it"
    for name, going in channels.items():
        of_group = [index for other, index in ranking if other == name]
        assert sorted(of_group[: len(going)]) == list(going), "the cheapest of the group go"


def _is_liked(name: str, gone: int) -> bool:
    group = STRUCTURE.group(name)
    return group.size - gone in Rounding(8, gives_way=True).smaller_sizes(group)


def test_where_multiples_would_end_far_below_the_target_finer_numbers_are_left() -> None:
    structure = trace(nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 4)), torch.zeros(1, 4))
    (group,) = structure.channels
    for share, left in ((0.5, 32), (0.65, 41), (0.74, 47), (0.97, 62)):  # of 64: 41.6, 47.4, 62.1
        for gives_way, expected in ((True, left), (False, left // 8 * 8)):
            rounding = Rounding(8, gives_way=gives_way)
            leaves = [(group.name, index) for index in range(64)]
            target = int(share * predicted_macs(structure))
            assert 64 - len(choose_channels(structure, leaves, target, rounding=rounding)) == expected


def test_leaves_are_held_back_until_a_multiple_is_reached() -> None:
    name = LEAVES[0][0]  # 8 channels
    leaves = [(name, index) for index in (5, 1, 0, 2)]
    assert list(bunches(STRUCTURE, leaves[:3], Rounding(4))) == []
    assert list(bunches(STRUCTURE, leaves, Rounding(4))) == [tuple(leaves)]
    assert list(bunches(STRUCTURE, leaves, Rounding(1, 6))) == [((name, 5),), ((name, 1),)]


def test_nothing_goes_where_the_target_is_met_already() -> None:
    assert choose_channels(STRUCTURE, LEAVES, predicted_macs(STRUCTURE)) == []


def test_an_impossible_target_takes_all_but_one_channel_of_each_group() -> None:
    assert choose_channels(STRUCTURE, LEAVES, 1) == list(sparing_last(STRUCTURE, LEAVES))
