"""What is drawn lies where the numbers say."""

import dataclasses
import math

import pytest

from amsc.records import TrainingCurve
from amsc.report.figures import figures, final_reconstruction
from amsc.report.headline import cost_rows, heroes
from amsc.report.library import data_text
from report.fixed import bare_record, fixed_record


def test_points_go_from_the_dearest_to_the_cheapest_and_know_their_place() -> None:
    path = figures(fixed_record())["path"]
    assert [point["name"] for point in path] == ["dense 0", "depth 1", "width 2", "finetune 3"]
    assert [point["share"] for point in path] == pytest.approx([1.0, 0.72, 0.4992, 0.4992])
    assert [point["place"] for point in path] == [0, 1, 2, 3]
    assert path[1]["words"].startswith("72.0% of the multiply-adds (9 M), 45 K parameters: accuracy 97.20%")


def test_widths_along_the_path_are_left_out_where_they_do_not_fit() -> None:
    record = fixed_record()
    assert [layer["along"] for layer in figures(record)["layers"]][2] == [32, 0, 0, 0]
    shorter = dataclasses.replace(record, path=record.path[:2])
    assert {tuple(layer["along"]) for layer in figures(shorter)["layers"]} == {()}


def test_norms_are_shares_of_where_they_began_and_zero_once_gone() -> None:
    lines = {line["name"]: line for line in figures(fixed_record())["norms"]["blocks"]}
    kept = [(point["epoch"], point["norm"]) for point in lines["layer1.0"]["points"]]
    assert kept == [(0.0, 1.0), (0.5, 1.0), (1.0, 1.0), (1.5, 0.75)]
    gone = [(point["epoch"], point["norm"]) for point in lines["layer2.0"]["points"]]
    assert gone == [(0.0, 1.0), (0.5, 0.25), (1.0, 0.0), (1.5, 0.0), (2.0, 0.0)]
    assert (lines["layer1.0"]["isGone"], lines["layer2.0"]["isGone"]) == (False, True)
    groups = {line["name"]: line["left"] for line in figures(fixed_record())["norms"]["groups"]}
    assert groups == {"layer1.0.conv1": 0.5, "layer2.0.conv1": 0.0}


def test_losses_lie_after_the_training_before_them() -> None:
    losses = figures(fixed_record())["losses"]
    assert [(one["phase"], one["epoch"]) for one in losses] == [
        ("depth", 0.5), ("depth", 1.0), ("width", 1.5), ("width", 2.0), ("finetune", 3.0), ("finetune", 4.0),
    ]  # fmt: skip
    dense, *rest = fixed_record().path
    trained = fixed_record(
        path=(dataclasses.replace(dense, epochs=3.0), *(dataclasses.replace(p, epochs=p.epochs + 3) for p in rest)),
        training=(TrainingCurve("dense", (3.0,), (1.0,)), *fixed_record().training),
    )
    assert [one["epoch"] for one in figures(trained)["losses"]] == [3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0]


def test_scores_on_the_way_lie_beside_their_losses() -> None:
    record = fixed_record()
    watched = figures(record)["watched"]
    assert [(one["phase"], one["epoch"], one["score"]) for one in watched] == [
        ("finetune", 2.5, 0.94), ("finetune", 3.5, 0.96),
    ]  # fmt: skip
    assert watched[0]["words"] == "finetune, on the way: 94.00%"
    assert {one["line"] for one in watched} == {one["line"] for one in figures(record)["losses"] if one["epoch"] > 2.1}
    odd = dataclasses.replace(record.training[-1], scores=(math.nan, 0.5))
    assert [one["score"] for one in figures(dataclasses.replace(record, training=(odd,)))["watched"]] == [0.5]
    assert figures(bare_record())["watched"] == []


def test_of_reconstructions_the_one_of_the_outcome_is_shown() -> None:
    record = fixed_record()
    (drawn, left) = figures(record)["repaired"]
    assert drawn == {"name": "layer3.0.conv1", "before": 0.5, "after": 0.125}
    assert left["name"] == "fc"
    dense, depth, width, tuned = record.path
    later = dataclasses.replace(depth.repaired, examples=7)  # type: ignore[type-var]
    matching = dataclasses.replace(
        width, repaired=later, removed_blocks=record.removed_blocks, removed_channels=record.removed_channels
    )
    other = dataclasses.replace(tuned, repaired=depth.repaired)
    found = final_reconstruction(dataclasses.replace(record, path=(dense, depth, matching, other)))
    assert found is later
    assert final_reconstruction(bare_record()) is None


def test_what_is_not_finite_is_null_and_nothing_ends_the_script() -> None:
    assert data_text({"a": [math.nan, math.inf, 1.5]}) == '{"a":[null,null,1.5]}'
    assert data_text("</script><!--&") == '"\\u003c/script\\u003e\\u003c!--\\u0026"'


def test_the_three_numbers_and_the_bars() -> None:
    assert heroes(fixed_record()) == (
        ("2\N{MULTIPLICATION SIGN}", "fewer multiply-adds"),
        ("1.62\N{MULTIPLICATION SIGN}", "faster (latency)"),
        ("\N{MINUS SIGN}0.50", "\N{PLUS-MINUS SIGN} 0.40 points of accuracy"),
    )
    same = heroes(fixed_record(after=fixed_record().before))
    assert same[0] == ("1\N{MULTIPLICATION SIGN}", "the same multiply-adds")
    rows = {row.name: row for row in cost_rows(fixed_record())}
    assert rows["MACs"].share == pytest.approx(0.4992)
    assert rows["accuracy (test)"].share == pytest.approx(0.975 / 0.98)
    assert rows["removable blocks"].share is None
    assert rows["peak memory"].change == "2\N{MULTIPLICATION SIGN} less"
    nothing = fixed_record(before=dataclasses.replace(fixed_record().before, macs=0))
    assert {row.name: row.share for row in cost_rows(nothing)}["MACs"] is None
