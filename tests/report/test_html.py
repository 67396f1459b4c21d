"""The page is self-contained, escaped, well formed, and made of the record alone."""

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

from amsc.records import Record, from_json, to_json
from amsc.report import render
from amsc.report.chart import path_chart
from amsc.words.record import path_remarks, shown_path
from report.fixed import fixed_record

GOLDEN = Path(__file__).with_name("golden.html")
VOID = {"meta", "line", "polyline", "circle", "rect", "path"}


def test_page_is_the_golden_one() -> None:
    """After a wanted change, `fixed.py` writes the new page."""
    assert render(fixed_record()) == GOLDEN.read_text(encoding="utf-8")


def test_page_needs_nothing_but_the_saved_record() -> None:
    record = fixed_record()
    assert render(from_json(Record, to_json(record))) == render(record)


def test_page_asks_nobody_for_anything() -> None:
    page = render(fixed_record())
    assert not re.search(r"<script|<link|<img|https?:|url\(|@import", page)


def test_names_cannot_become_markup() -> None:
    record = fixed_record(removed_blocks=("<script>alert(1)</script>",), settings={'"><b>': "<i>"})
    page = render(record)
    assert "<script" not in page
    assert "<i>" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID or not self.get_starttag_text().endswith("/>"):  # type: ignore[union-attr]
            self.open.append(tag)
        values = dict(attrs)
        if "id" in values:
            self.ids.append(str(values["id"]))
        self.references += str(values.get("aria-labelledby") or "").split()
        if tag == "meta":
            self.open.pop()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += str(dict(attrs).get("aria-labelledby") or "").split()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_well_formed_and_its_labels_exist() -> None:
    tags = _Tags()
    tags.feed(render(fixed_record()))
    assert tags.open == []
    assert len(tags.ids) == len(set(tags.ids))
    assert tags.references
    assert set(tags.references) <= set(tags.ids)


def test_page_without_path_or_removals_says_so() -> None:
    page = render(fixed_record(path=(), removed_blocks=(), removed_channels={}))
    assert "no path point with a score" in page
    assert "No block of 3." in page
    assert "No channel outside the removed blocks." in page


def test_points_with_undefined_score_are_in_the_table_but_not_drawn() -> None:
    record = fixed_record()
    first = dataclasses.replace(record.path[0], score=float("nan"))
    record = dataclasses.replace(record, path=(first, *record.path[1:]))
    chart = path_chart(record)
    assert chart is not None
    assert len(chart.marks) == 3
    assert "dense 0" in render(record)


def test_marks_lie_where_the_numbers_say() -> None:
    chart = path_chart(fixed_record())
    assert chart is not None
    dense, depth, width, tuned = chart.marks
    assert dense.x > depth.x > width.x == tuned.x, "fewer MACs lie further left"
    assert depth.y < dense.y < tuned.y < width.y, "a better score lies higher"
    for mark in chart.marks:
        assert chart.left <= mark.x <= chart.right
        assert chart.top <= mark.y <= chart.bottom
    assert dense.x == chart.right, "12.5 M is the last tick"


def test_chart_of_a_single_point_has_a_scale() -> None:
    record = fixed_record()
    chart = path_chart(dataclasses.replace(record, path=record.path[:1]))
    assert chart is not None
    assert len(chart.y_ticks) >= 2
    assert chart.top < chart.marks[0].y < chart.bottom


def test_a_path_without_fine_tuning_has_no_row_of_that_name() -> None:
    usual = fixed_record()
    assert shown_path(usual) == usual.path
    *points, tuned = usual.path
    walked = fixed_record(settings={"finetune_epochs": 0.0})
    assert [point.phase for point in shown_path(walked)] == ["dense", "depth", "width"]
    smaller = dataclasses.replace(tuned, macs=tuned.macs - 1)
    cut = fixed_record(settings={"finetune_epochs": 0.0}, path=(*points, smaller))
    assert [point.phase for point in shown_path(cut)] == ["dense", "depth", "width", "end"]
    assert "finetune 0" not in render(walked) + render(cut)
    assert "end 0" in render(cut)


def test_blocks_that_come_back_are_explained() -> None:
    usual = fixed_record()
    assert path_remarks(usual) == ()
    dense, depth, width, tuned = usual.path
    back = fixed_record(path=(dense, depth, dataclasses.replace(width, blocks_left=3), tuned))
    (remark,) = path_remarks(back)
    assert remark.startswith("width goes on from an earlier network, with 3 blocks and not 2: ")
    assert "Width goes on from an earlier network" in render(back)
    assert remark in str(back)
