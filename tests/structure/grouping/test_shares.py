"""Convolutions with groups: whole groups go, or where these cannot, as many channels of every group."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from amsc.errors import CutError
from amsc.structure import Structure, trace
from amsc.surgery import AxisCut, apply_plan, cut, plan_cut
from random_constructs import GroupedUnit
from structure.awkward import Net, conv, images, settled


def traced_and_cut(model: nn.Module) -> tuple[Structure, nn.Module]:
    model = settled(model)
    structure = trace(model, images())
    channels = {group.name: range(0, group.size, 2) for group in structure.channels if group.exact}
    return structure, cut(model, plan_cut(structure, channels=channels), images())


def test_whole_groups_go_where_they_can() -> None:
    structure, small = traced_and_cut(nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 16, groups=4), conv(16, 2)))
    assert [(group.size, group.exact) for group in structure.channels] == [(4, True)]
    assert small[2].groups == 2


def test_an_equal_share_of_every_group_goes_behind_a_shuffle() -> None:
    model = nn.Sequential(conv(3, 8), GroupedUnit(8, 8, 8, 2, adds=True), conv(8, 2))
    structure, small = traced_and_cut(model)
    group = structure.group("1.first")
    first, last = small[1].first, small[1].last
    assert group.exact
    assert group.size == 2, "each of two from both groups before, and from both after the shuffle"
    assert (first.groups, first.out_channels, last.groups, last.in_channels) == (2, 4, 2, 4)


def test_outputs_are_joined_until_every_group_loses_as_many() -> None:
    """Each channel goes with its mirror image: two of the outer groups, or two of the middle one."""
    model = Net(
        lambda self, x: self.b(F.relu((y := self.a(x)) + y.flip(1))), a=nn.Conv2d(3, 12, 1, groups=3), b=conv(12, 2)
    )
    structure, small = traced_and_cut(model)
    (group,) = structure.channels
    assert group.members[0].indices == ((0, 1, 4, 7, 10, 11), (2, 3, 5, 6, 8, 9))
    assert (small.a.groups, small.a.out_channels) == (3, 6)


def test_a_group_convolution_on_the_input_loses_outputs() -> None:
    """No group can go whole, since the input stays."""
    structure, small = traced_and_cut(nn.Sequential(nn.Conv2d(3, 12, 3, groups=3), nn.ReLU(), conv(12, 2)))
    (group,) = structure.channels
    assert group.members[0].indices == ((0, 4, 8), (1, 5, 9), (2, 6, 10), (3, 7, 11))
    assert (small[0].groups, small[0].in_channels, small[0].out_channels) == (3, 3, 6)


def test_what_no_share_can_go_of_stays_with_a_reason() -> None:
    """Three groups of four behind a shuffle of three: every reader takes other positions of every group."""
    structure, _ = traced_and_cut(nn.Sequential(conv(3, 12), GroupedUnit(12, 12, 12, 3, adds=True), conv(12, 2)))
    assert all(pin.reason for pin in structure.pins)
    assert "1.first" not in {group.name for group in structure.channels}


@pytest.mark.parametrize("removed", [(0,), (0, 1), (0, 2, 3), (0, 4)])
def test_unequal_shares_are_refused(removed: tuple[int, ...]) -> None:
    model = nn.Sequential(conv(4, 8, groups=4))
    plan = plan_cut(trace(model.eval(), images(4)))
    cuts = (AxisCut("0.weight", 0, 8, removed, True), AxisCut("0.bias", 0, 8, removed, True))
    if removed == (0, 1):
        assert apply_plan(model, replace(plan, cuts=cuts))[0].groups == 3
    else:
        with pytest.raises(CutError, match="as many channels of every group"):
            apply_plan(model, replace(plan, cuts=cuts))


def test_groups_go_after_a_share_of_each_went() -> None:
    plan = plan_cut(trace(model := nn.Sequential(conv(4, 8, groups=4)).eval(), images(4)))
    removed = (0, 1, 2, 4, 6)  # the first group, and one of each other
    cuts = (AxisCut("0.weight", 0, 8, removed, True), AxisCut("0.bias", 0, 8, removed, True))
    small = apply_plan(model, replace(plan, cuts=cuts))[0]
    assert (small.groups, small.out_channels) == (3, 3)
    assert torch.equal(small.weight, model[0].weight[[3, 5, 7]])
