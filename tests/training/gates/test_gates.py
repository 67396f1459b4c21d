"""The gate path: it meets its budget step by step, goes on after a stop, and cuts what the loss depends on least."""

import copy
from collections.abc import Collection, Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from amsc.errors import TargetError, TrainingError
from amsc.penalty import Penalty
from amsc.structure import ChannelGroup, Structure, trace
from amsc.structure.costing import predicted_macs
from amsc.structure.cutting import after_removal
from amsc.training import (
    OptimizerChoice,
    Remainders,
    Trail,
    WalkSettings,
    choose_gates,
    find_gates,
    gate_derivatives,
    walk,
    walk_state_from_plain,
    walk_state_to_plain,
)
from amsc.training.removal.to_cost import lowest_cost
from blocks_nets import Decoder, rows
from training.small import TASK, ListData, same_tensors, shrink, small_data

DATA = small_data()
SETTINGS = WalkSettings(method="gates", epochs=4, points=4, optimizer=OptimizerChoice(0.05), depth_rule="share")


def gate_path(dense: nn.Module, structure: Structure, macs: float = 0.5, **options: object) -> Iterator[tuple]:
    target = int(macs * predicted_macs(structure))
    settings = replace(SETTINGS, **options.pop("settings", {}))  # type: ignore[arg-type]
    return walk(dense, structure, DATA, TASK, shrink=shrink, target_cost=target, settings=settings, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("macs", [0.4, 0.7])
@pytest.mark.parametrize("share", [0.0, 0.6])
def test_every_piece_keeps_to_the_plan(dense: nn.Module, structure: Structure, macs: float, share: float) -> None:
    steps = list(gate_path(dense, structure, macs, settings={"depth_share": share, "epochs": 1.6}))
    left = [point.macs / predicted_macs(structure) for point, _, _ in steps]
    assert 0.99 * macs <= left[-1] <= macs
    if share == 0:
        planned = [macs + (1 - macs) * (1 - (piece + 1) / len(left)) ** 3 for piece in range(len(left))]
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
    assert same_tensors(again[-1][1].moments["momentum_buffer"], steps[-1][1].moments["momentum_buffer"])
    small = Trail(dense, structure, DATA, TASK, shrink, SETTINGS).rebuild(steps[-1][1])
    assert predicted_macs(small.structure) == steps[-1][0].macs


def test_a_piece_cuts_what_a_scan_of_the_network_says(dense: nn.Module, structure: Structure) -> None:
    (_, snapshot, _), *_ = gate_path(dense, structure, 0.5, settings={"depth_share": 0.0, "points": 2, "epochs": 0.4})
    inner, coordinates = find_gates(structure, dense)
    found = gate_derivatives(dense, inner, coordinates, DATA, TASK, stand_in=lambda call: nn.Identity(), examples=512)
    choice = choose_gates(inner, coordinates, found, depth_share=0.0)
    planned = round((0.5 + 0.5 * 0.5**3) * predicted_macs(structure))
    assert snapshot.removal.channels == choice.removal(planned).channels
    assert predicted_macs(structure, snapshot.removal.channels) <= planned


def test_prices_after_recovery_order_the_channels_and_predict_nothing(dense: nn.Module, structure: Structure) -> None:
    inner, coordinates = find_gates(structure, dense)
    found = gate_derivatives(dense, inner, coordinates, DATA, TASK, stand_in=lambda call: nn.Identity(), examples=64)
    target = int(0.5 * predicted_macs(structure))
    plain = choose_gates(inner, coordinates, found, dimensions="width")
    gone = plain.removal(target).channels
    name, size = max(((name, inner.group(name).size) for name in gone), key=lambda it: it[1] - len(gone[it[0]]))
    order = [*range(1, size), 0]
    whole, more, free = (
        choose_gates(
            inner,
            coordinates,
            found,
            dimensions="width",
            remainders={name: [(index, share) for index in order]},
        )
        for share in (1.0, 3.0, 0.0)
    )
    counts = [len(choice.removal(target).channels[name]) for choice in (plain, whole, more, free)]
    assert 0 < counts[0] == counts[1] == counts[2] < counts[3], "what others can do goes first"
    assert whole.removal(target).channels[name] == tuple(order[: counts[0]]), "these go, but as many as gates say"
    assert free.removal(target).channels[name] == tuple(order[: counts[3]])
    for removal in (plain.removal(target), free.removal(target)):
        assert plain.predicted_increase(removal) == free.predicted_increase(removal)
    assert plain.block_order == free.block_order


def test_a_piece_asks_what_is_left_after_recovery_of_what_can_go(dense: nn.Module, structure: Structure) -> None:
    asked = []

    def recovery(model: nn.Module, live: Structure, groups: Collection[str]) -> Remainders:
        asked.append((predicted_macs(live), set(groups)))
        return {}

    settings = {"depth_share": 0.0, "points": 2, "epochs": 0.4}
    left = [point.macs for point, *_ in gate_path(dense, structure, 0.5, settings=settings, recovery=recovery)]
    assert [macs for macs, _ in asked] == [predicted_macs(structure), left[0]]
    assert asked[0][1] == {name for name, _ in find_gates(structure, dense)[1].channels}


def test_blocks_go_where_channels_are_not_enough(dense: nn.Module, structure: Structure) -> None:
    floor = lowest_cost(structure, Penalty(structure, dense).channels) / predicted_macs(structure)
    *_, (point, _, _) = gate_path(
        dense, structure, 0.9 * floor, settings={"depth_share": 0.0, "points": 1, "epochs": 0.2}
    )
    assert point.removed_blocks
    assert point.macs <= 0.9 * floor * predicted_macs(structure)


def test_blocks_that_need_a_stand_in_are_named_if_there_is_none() -> None:
    net = Decoder().eval()
    structure = trace(net, rows())
    data, settings = (
        ListData(((rows(), torch.zeros(len(rows()), dtype=torch.long)),)),
        replace(SETTINGS, depth_share=0.0),
    )
    with pytest.raises(TrainingError, match=r"stand_in=amsc\.surgery\.stand_in"):
        list(
            walk(
                net, structure, data, TASK, shrink=shrink, target_cost=predicted_macs(structure) // 2, settings=settings
            )
        )


def test_channels_of_a_residual_stream_have_gates_if_asked_for(dense: nn.Module, structure: Structure) -> None:
    (stream,) = (group for group in structure.channels if group.kind == "stream" and group.exact)
    inner, coordinates = find_gates(structure, dense, streams=True)
    names = [name for name, _ in coordinates.channels]
    assert names.count(stream.name) == stream.size
    assert stream.name not in {name for name, _ in find_gates(structure, dense)[1].channels}
    found = gate_derivatives(dense, inner, coordinates, DATA, TASK, stand_in=lambda call: nn.Identity(), examples=32)
    channel, step = 3, 1e-3
    above, below = (gated_loss(dense, stream, channel, 1 + sign * step) for sign in (1, -1))
    expected = (above - below) / (2 * step)
    mine = float(found.gradients[:, found.column((stream.name, channel))].mean())
    assert mine == pytest.approx(expected, rel=0.02, abs=1e-4)


def gated_loss(dense: nn.Module, group: ChannelGroup, channel: int, gate: float) -> float:
    """The mean loss of the 32 examples of a scan with all that makes a channel of the stream multiplied by a gate."""
    net = copy.deepcopy(dense).eval().double()
    for member in group.members:
        if member.role == "affine":
            net.get_parameter(member.parameter).data[list(member.indices[channel])] *= gate
    batches = list(DATA.batches("train"))
    chosen = batches[:: max(1, len(batches) // 2)][:2]
    losses = [TASK.loss(net(images.double()), labels) for images, labels in chosen]
    return float(torch.stack(losses).mean())


def test_a_path_with_streams_goes_below_the_floor_of_one_without(dense: nn.Module, structure: Structure) -> None:
    gated, coordinates = find_gates(structure, dense)
    lowest = after_removal(gated, {}, coordinates.blocks)
    floor = lowest_cost(lowest, coordinates.channels) / predicted_macs(structure)
    quick = {"depth_share": 0.5, "points": 2, "epochs": 0.4}
    with pytest.raises(TargetError, match="the lowest is"):
        list(gate_path(dense, structure, 0.8 * floor, settings=quick))
    *_, (point, snapshot, _) = gate_path(dense, structure, 0.8 * floor, settings={**quick, "streams": True})
    assert point.macs <= 0.8 * floor * predicted_macs(structure)
    assert any(structure.group(name).kind == "stream" for name in snapshot.removal.channels)
