from dataclasses import replace

import pytest

from amsc.errors import CutError
from amsc.records import from_json, to_json
from amsc.structure.cutting import after_removal
from amsc.surgery import AxisCut, CutPlan, compose, plan_cut
from amsc.surgery.plan import outermost
from surgery.nets import small_structure


def test_plan_says_which_positions_go_and_which_are_masked() -> None:
    plan = plan_cut(small_structure(), channels={"last": [3, 1, 3]})
    assert plan.channels == {"last": (1, 3)}
    assert plan.cuts == (
        AxisCut("conv2.bias", 0, 5, (1, 3), zeroed=True),
        AxisCut("conv2.weight", 0, 5, (1, 3), zeroed=True),
        AxisCut("fc.weight", 1, 5, (1, 3), zeroed=False),
    )


def test_running_statistics_are_cut_but_not_masked() -> None:
    zeroed = {cut.parameter: cut.zeroed for cut in plan_cut(small_structure(), channels={"stream": [0]}).cuts}
    assert zeroed["bn1.weight"]
    assert not zeroed["bn1.running_mean"]
    assert not zeroed["conv2.weight"]


def test_removed_block_is_not_sliced() -> None:
    plan = plan_cut(small_structure(), channels={"stream": [0], "inner": [2]}, blocks=["body.0"])
    assert plan.blocks == ("body.0",)
    assert "body.0.bn1.weight" in plan.block_parameters
    assert [cut.parameter for cut in plan.cuts if cut.parameter.startswith("body")] == []


def test_plan_survives_json() -> None:
    plan = plan_cut(small_structure(), channels={"stream": [0, 7], "last": [4]}, blocks=["body.0"])
    assert from_json(CutPlan, to_json(plan)) == plan


def test_plan_prints_its_outcome() -> None:
    plan = plan_cut(small_structure(), channels={"last": [1, 3]})
    assert str(plan).startswith("CutPlan: 2 channels of 1 groups and 0 blocks go")
    assert f"{plan.macs:,} macs" in str(plan)


def test_nothing_asked_changes_nothing() -> None:
    plan = plan_cut(small_structure(), channels={"last": []})
    assert plan.changes_nothing
    assert plan.channels == {}


@pytest.mark.parametrize(
    ("channels", "words"),
    [
        ({"strem": [0]}, "stream"),
        ({"stream": [8]}, "channels 0 to 7; 8 is not"),
        ({"stream": [-1]}, "-1 is not"),
        ({"stream": [0.5]}, "list of integers"),
        ({"stream": 3}, "list of integers"),
        ({"odd": [0]}, "not exact.*it is the output"),
        ({"last": range(5)}, "axis 0 of 'conv2.bias' would leave it empty.*group last"),
    ],
)
def test_impossible_channels_are_refused_in_words(channels: dict[str, list[int]], words: str) -> None:
    with pytest.raises(CutError, match=words):
        plan_cut(small_structure(), channels=channels)


def test_unknown_block_is_refused_with_the_nearest() -> None:
    with pytest.raises(CutError, match=r"body\.0"):
        plan_cut(small_structure(), blocks=["body.1"])
    with pytest.raises(CutError, match="not the string"):
        plan_cut(small_structure(), blocks="body.0")


def test_inexact_groups_go_when_allowed() -> None:
    assert plan_cut(small_structure(), channels={"odd": [0]}, allow_inexact=True).channels == {"odd": (0,)}


def test_emptying_a_group_inside_a_removed_block_is_no_error() -> None:
    plan = plan_cut(small_structure(), channels={"inner": range(6)}, blocks=["body.0"])
    assert plan.cuts == ()


def test_composition_equals_cutting_at_once() -> None:
    structure = small_structure()
    first = plan_cut(structure, channels={"stream": [0, 3], "last": [4]})
    second = plan_cut(after_removal(structure, first.channels, first.blocks), channels={"stream": [0, 2], "inner": [5]})
    # Left of the stream after the first: 1 2 4 5 6 7; its channels 0 and 2 were 1 and 4.
    at_once = plan_cut(structure, channels={"stream": [0, 1, 3, 4], "last": [4], "inner": [5]})
    assert compose(first, second) == at_once


def test_composition_drops_cuts_in_a_block_that_goes_later() -> None:
    structure = small_structure()
    first = plan_cut(structure, channels={"stream": [2], "inner": [0, 1]})
    second = plan_cut(after_removal(structure, first.channels, first.blocks), blocks=["body.0"])
    at_once = plan_cut(structure, channels={"stream": [2], "inner": [0, 1]}, blocks=["body.0"])
    assert compose(first, second) == at_once


def test_plans_of_different_networks_do_not_compose() -> None:
    structure = small_structure()
    first = plan_cut(structure, channels={"stream": [0]})
    with pytest.raises(CutError, match=r"leaves 7 positions on axis 0 of 'bn1\.bias', the second one expects 8"):
        compose(first, first)
    block = plan_cut(structure, blocks=["body.0"])
    with pytest.raises(CutError, match="removed the block"):
        compose(block, plan_cut(structure, channels={"inner": [0]}))


def test_inner_blocks_are_covered_by_outer_ones() -> None:
    assert outermost(["b", "a.b", "a", "a.b", "ab"]) == ("a", "ab", "b")
    structure = small_structure()
    inside = replace(structure.blocks[0], name="body")
    both = replace(structure, blocks=(*structure.blocks, inside))
    assert plan_cut(both, blocks=["body.0", "body"]).blocks == ("body",)


@pytest.mark.parametrize("zeroed", [(True, False), (False, True)])
def test_composition_masks_what_either_plan_masks(zeroed: tuple[bool, bool]) -> None:
    empty = plan_cut(small_structure())
    first = replace(empty, cuts=(AxisCut("shared.weight", 0, 4, (1,), zeroed[0]),))
    second = replace(empty, cuts=(AxisCut("shared.weight", 0, 3, (1,), zeroed[1]),))
    assert compose(first, second).cuts == (AxisCut("shared.weight", 0, 4, (1, 2), True),)
