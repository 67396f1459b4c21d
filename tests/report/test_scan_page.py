"""The frontier of a scan as text and as a page, from a record alone."""

import re
from dataclasses import replace

import pytest

from amsc.report import frontier_page, render_scan, scan_columns, scan_remarks, scan_rows
from amsc.report.scan_page import scan_figures
from amsc.words.page import as_text
from report.fixed import bare
from report.fixed_scan import DENSE, HALF, LESS, RECORD, REPAIRED, SEEN


def test_what_reconstruction_gives_back_has_columns_marks_and_a_remark() -> None:
    columns, rows = scan_columns(REPAIRED), scan_rows(REPAIRED)
    assert {len(row) for row in rows} == {len(columns)}
    assert [row[columns.index("loss, reconstructed")] for row in rows] == ["+0", "+0.25", "+1.25"]
    assert [row[columns.index("accuracy, reconstructed")] for row in rows] == ["50.00%", "62.50%", "62.50%"]
    assert scan_remarks(REPAIRED) == (
        "reconstructed: what each cut costs is given back as far as least squares can, from 96 training examples "
        "without their labels (3 s for all)",
    )
    drawn = scan_figures(REPAIRED)
    assert [(mark["phase"], mark["number"], mark["value"]) for mark in drawn["losses"]] == [
        ("dense", 0, 0.0), ("width", 1, 2.0), ("finetune", 1, 0.25), ("width", 2, 3.0), ("finetune", 2, 1.25),
    ]  # fmt: skip
    assert "loss as cut +2, reconstructed +0.25" in drawn["path"][1]["words"]
    page = bare(render_scan(REPAIRED))
    assert page.count("</svg>reconstructed</li>") == 2, "in the legends of losses and of scores"
    assert "reconstructed" not in bare(render_scan(SEEN)).lower()


def test_networks_are_ringed_at_the_best_that_is_known_of_them() -> None:
    found = [(one["loss"], one["score"], one["share"]) for one in scan_figures(REPAIRED)["path"]]
    assert found == [(0.0, 0.5, 1.0), (0.25, 0.625, 0.48), (1.25, 0.625, 0.3)]
    assert [(one["loss"], one["score"]) for one in scan_figures(RECORD)["path"]] == [
        (0.0, None),
        (0.5, None),
        (2.0, None),
    ]
    scores = [(mark["phase"], mark["value"]) for mark in scan_figures(REPAIRED)["scores"]]
    assert scores == [("dense", 0.5), *(("width", 0.5), ("depth", 0.75), ("finetune", 0.625)) * 2]
    assert scan_figures(RECORD)["scores"] == []
    assert 'data-chart="scores"' not in render_scan(RECORD)


def test_a_network_of_which_nothing_is_known_is_in_the_table_alone() -> None:
    unknown = replace(HALF, is_beyond_model=True, predicted_increase=0.0)
    nan = replace(LESS, seen_increase=float("nan"))
    record = replace(RECORD, points=(DENSE, unknown, nan))
    assert [one["name"] for one in scan_figures(record)["path"]] == ["dense"]
    assert len(scan_rows(record)) == 3
    nothing = replace(RECORD, points=(replace(DENSE, seen_increase=float("nan")), unknown))
    assert "The loss is known of no network." in render_scan(nothing)


def test_bars_go_with_the_predicted_loss() -> None:
    bars = [row[scan_columns(RECORD).index("")] for row in scan_rows(RECORD)]
    assert [len(bar) for bar in bars] == [0, 6, 24]


def test_rows_have_a_cell_for_each_column() -> None:
    for record in (RECORD, SEEN):
        assert {len(row) for row in scan_rows(record)} == {len(scan_columns(record))}
    assert "50.00%" in scan_rows(SEEN)[1]
    assert "75.00%" in scan_rows(SEEN)[1]
    assert "2 ms ± 100 µs" in scan_rows(SEEN)[1]


def test_lines_are_aligned() -> None:
    title, head, *rest, more = as_text(frontier_page(RECORD)).splitlines()
    assert title.startswith("net <x> on digits")
    assert len(rest) == 3
    assert "scan.removal" in more
    assert all(
        line[: head.index("MACs") + 4].split() == [row[0], *row[1].split()]
        for line, row in zip(rest, scan_rows(RECORD), strict=True)
    )


def test_a_network_that_loses_nothing_has_no_bars() -> None:
    flat = replace(RECORD, points=(DENSE, replace(HALF, predicted_increase=-0.1)))
    assert [row[scan_columns(flat).index("")] for row in scan_rows(flat)] == ["", ""]
    assert [mark["value"] for mark in scan_figures(flat)["losses"]] == [0.0, -0.1]


def test_the_page_is_whole_and_escaped() -> None:
    page = render_scan(SEEN)
    assert page == render_scan(SEEN)
    assert not re.search(r"<img|https?:|url\(|@import|<script src|<iframe", bare(page))
    assert "net &lt;x&gt;" in page
    assert "layer&lt;1&gt;" in page
    assert "<x>" not in page
    assert "<1>" not in page
    assert "48.0 % of the MACs" in page


def test_shares_with_one_network_out_of_reach_and_beyond_the_model_are_told() -> None:
    same = replace(HALF, share=0.6)
    beyond = replace(LESS, predicted_increase=0.0, is_beyond_model=True)
    record = replace(RECORD, points=(DENSE, same, HALF, beyond), out_of_reach=(0.2, 0.1), lowest_share=0.25631)
    assert [row[0] for row in scan_rows(record)] == ["100%", "60%", "50%", "30%"]
    assert [row[scan_columns(record).index("predicted loss")] for row in scan_rows(record)][3] == "beyond the model"
    out, one, unknown = scan_remarks(record)
    assert out == "out of reach: macs=0.2, 0.1; the lowest is macs=25.7%"
    assert one.startswith("one network for 60%, 50%: ")
    assert unknown.startswith("beyond the model: the loss would fall")
    lines = [line.strip() for line in as_text(frontier_page(record)).splitlines()]
    assert lines[-4:-1] == [out, one, unknown]
    page = render_scan(record)
    assert page.count("% of the MACs</h3>") == 2
    assert [one["name"] for one in scan_figures(record)["path"]] == ["dense", "macs=60%, 50%"]
    assert out[1:] in page
    assert scan_remarks(RECORD) == ()


def test_a_prediction_far_from_what_was_seen_is_marked_and_what_was_seen_is_shown() -> None:
    seen = (
        replace(DENSE, seen_increase=0.0),
        replace(HALF, predicted_increase=0.0, seen_increase=2.25, is_far_off=True),
        replace(LESS, seen_increase=4.5),
    )
    record = replace(RECORD, points=seen)
    column = {name: [row[i] for row in scan_rows(record)] for i, name in enumerate(scan_columns(record))}
    assert column["predicted loss"] == ["+0", "+0, far off", "+2"]
    assert column["loss, as cut"] == ["+0", "+2.25", "+4.5"]
    assert [len(bar) for bar in column[""]] == [0, 12, 24]
    (remark,) = scan_remarks(record)
    assert remark.startswith("far off: the loss of the network as cut")
    page = render_scan(record)
    assert "Far off: the loss" in page
    drawn = scan_figures(record)
    assert "loss as cut +2.25, predicted loss +0, far off" in drawn["path"][1]["words"]
    assert [one["loss"] for one in drawn["path"]] == pytest.approx([0.0, 2.25, 4.5])
