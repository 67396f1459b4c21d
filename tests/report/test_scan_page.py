"""The frontier of a scan as text and as a page, from a record alone."""

from dataclasses import replace

from amsc.records import ReconstructionRecord, RefittedLayer, ScanPoint, ScanRecord
from amsc.report import frontier_page, render_scan, scan_columns, scan_remarks, scan_rows
from amsc.report.scan_page import scan_chart
from amsc.words.page import as_text

DENSE = ScanPoint(1.0, 1000, 500, 3, 40, 0.0, (), {})
HALF = ScanPoint(0.5, 480, 260, 2, 21, 0.5, ("layer<1>",), {"conv": (0, 1)})
LESS = ScanPoint(0.3, 300, 130, 1, 9, 2.0, ("layer<1>",), {"conv": (0, 1, 2)})
RECORD = ScanRecord(
    "net <x>", "digits", "both", "macs", 1.0, 0.5, 64, True, "accuracy", (DENSE, HALF, LESS), {"torch": "2"}, {},
    {"path": 1.5},
)  # fmt: skip
SEEN = replace(
    RECORD,
    points=tuple(
        replace(point, score=0.5, score_reestimated=0.75, latency_seconds=2e-3, latency_spread_seconds=1e-4)
        for point in RECORD.points
    ),
)

REPAIRED = replace(
    SEEN,
    points=(
        replace(SEEN.points[0], seen_increase=0.0, seen_increase_reconstructed=0.0, score_reconstructed=0.5),
        *(
            replace(
                point,
                seen_increase=2.0 + i,
                seen_increase_reconstructed=0.25 + i,
                score_reconstructed=0.625,
                repaired=ReconstructionRecord("stream", 96, 0, (RefittedLayer("fc", "own", 0.5, 0.25, 0.1),), 1.5),
            )
            for i, point in enumerate(SEEN.points[1:])
        ),
    ),
)


def test_what_reconstruction_gives_back_has_columns_marks_and_a_remark() -> None:
    columns, rows = scan_columns(REPAIRED), scan_rows(REPAIRED)
    assert {len(row) for row in rows} == {len(columns)}
    assert [row[columns.index("loss, reconstructed")] for row in rows] == ["+0", "+0.25", "+1.25"]
    assert [row[columns.index("accuracy, reconstructed")] for row in rows] == ["50.00%", "62.50%", "62.50%"]
    assert scan_remarks(REPAIRED) == (
        "reconstructed: what each cut costs is given back as far as least squares can, from 96 training examples "
        "without their labels (3 s for all)",
    )
    chart = scan_chart(REPAIRED)
    assert chart is not None
    assert [mark.phase for mark in chart.marks] == ["dense", "width", "width", "finetune", "finetune"]
    assert [phase for phase, _ in chart.lines] == ["width", "finetune"]
    cut, repaired = chart.marks[1], chart.marks[3]
    assert cut.x == repaired.x
    assert cut.y < repaired.y, "a smaller loss lies lower"
    assert "loss as cut +2, reconstructed +0.25" in repaired.words
    page = render_scan(REPAIRED)
    assert page.count("</title></polygon>") == 2
    assert "</svg> reconstructed</li>" in page
    assert "reconstructed" not in render_scan(SEEN).lower()


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
    assert "polyline" in render_scan(flat)


def test_the_page_is_whole_and_escaped() -> None:
    page = render_scan(SEEN)
    assert page == render_scan(SEEN)
    assert page.count("<circle") == 3
    assert "net &lt;x&gt;" in page
    assert "layer&lt;1&gt;" in page
    assert "<x>" not in page
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
    assert page.count("<circle") == 3
    assert out in page
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
    assert "far off: the loss" in page
    assert "loss as cut +2.25, predicted loss +0, far off" in page
    assert scan_chart(record) != scan_chart(RECORD)
