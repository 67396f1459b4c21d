"""The page is self-contained, escaped, well formed, and made of the record alone."""

import base64
import dataclasses
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from amsc.records import Record, from_json, to_json
from amsc.report import render
from amsc.words.record import path_remarks, shown_path
from report.fixed import GOLDEN, bare, bare_record, fixed_record, long_record

VOID = {"meta", "link", "line", "circle", "rect", "path", "input"}


def drawn(record: Record) -> dict[str, Any]:
    """The data of the charts, as the page has them."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', render(record), re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_page_is_the_golden_one() -> None:
    """After a wanted change, `fixed.py` writes the new page."""
    assert bare(render(fixed_record())) == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("record", [fixed_record(), bare_record()], ids=["of today", "of before"])
def test_page_needs_nothing_but_the_saved_record(record: Record) -> None:
    assert render(from_json(Record, to_json(record))) == render(record)


def test_page_asks_nobody_for_anything_and_runs_only_its_own_scripts() -> None:
    page = render(fixed_record())
    assert not re.search(r"<img|https?:|url\(|@import|<script src|<iframe", bare(page))
    assert re.findall(r"<link[^>]*>", page) == ['<link rel="icon" href="data:,">']
    policy = re.search(r'"Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src &#39;none&#39;; ")
    scripts = re.findall(r"(?s)<script>(.*?)</script>", page)
    assert len(scripts) == 8
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"sha256-{digest}" in policy[1].replace("&#43;", "+")


def test_page_is_far_below_six_megabytes_also_of_a_long_run() -> None:
    assert len(render(long_record()).encode()) < 1_000_000


def test_names_cannot_become_markup_nor_end_the_data() -> None:
    evil = "</script><script>alert(1)</script>"
    record = fixed_record(removed_blocks=(evil,), settings={'"><b>': "<i>"})
    layer = dataclasses.replace(record.layers[0], name=evil, kind="<i>")
    record = dataclasses.replace(record, layers=(layer, *record.layers[1:]), model="<b>bold</b>")
    page = bare(render(record))
    assert evil not in page
    assert "<script>alert" not in page
    assert "<i>" not in page.replace("<i></i>", "")  # the filled part of a bar
    assert page.count("<b>") == 3  # the three numbers at the top
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert drawn(record)["layers"][0]["name"] == evil


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self._note(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def _note(self, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if "id" in values:
            self.ids.append(str(values["id"]))
        for name in ("aria-labelledby", "for", "data-copies"):
            self.references += str(values.get(name) or "").split()


@pytest.mark.parametrize("record", [fixed_record(), bare_record(), bare_record(path=())], ids=["all", "before", "none"])
def test_page_is_well_formed_and_its_labels_exist(record: Record) -> None:
    tags = _Tags()
    tags.feed(render(record))
    assert tags.open == []
    assert len(tags.ids) == len(set(tags.ids))
    assert tags.references
    assert set(tags.references) <= set(tags.ids)


def test_page_without_path_or_removals_says_so() -> None:
    page = render(bare_record(path=(), removed_blocks=(), removed_channels={}))
    assert "no path point with a score" in page
    assert "No block of 3 went." in page
    assert "No channel outside the removed blocks went." in page


def test_page_of_an_older_record_says_what_it_lacks() -> None:
    page = render(bare_record())
    assert "before amsc kept the widths of layers" in page
    assert "before amsc kept the reasons" in page
    assert "The losses of training were not kept." in page
    assert "The norms were not kept" in page
    assert "return here the YourNetwork, built as in the code" in page


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"path_epochs": 0.0}, "compared as wholes and not trained on the way"),
        ({"path_epochs": 2.0, "method": "gates"}, "with the method gates a scan says what closes"),
    ],
)
def test_page_says_why_there_is_no_lasso_picture(settings: dict[str, object], words: str) -> None:
    record = fixed_record(path=bare_record().path, settings=settings)
    assert words in render(record)
    assert 'data-chart="norms-blocks"' not in render(record)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "the record says nothing of one"),
        ({"reconstruction": 0}, "it was switched off"),
        ({"reconstruction": 512}, "nothing of this network could be refitted"),
    ],
)
def test_page_says_why_nothing_was_reconstructed(settings: dict[str, object], words: str) -> None:
    assert f"No reconstruction: {words}" in render(fixed_record(path=bare_record().path, settings=settings))
    assert "No reconstruction:" not in render(fixed_record(settings=settings))


def test_points_with_undefined_score_are_in_the_table_but_not_drawn() -> None:
    record = fixed_record()
    first = dataclasses.replace(record.path[0], score=float("nan"))
    record = dataclasses.replace(record, path=(first, *record.path[1:]))
    assert [point["name"] for point in drawn(record)["path"]] == ["depth 1", "width 2", "finetune 3"]
    assert '<th scope="row">dense 0</th>' in render(record)


def test_a_missing_point_and_widths_that_do_not_fit_are_told() -> None:
    record = fixed_record()
    dense, _, *rest = record.path
    page = render(dataclasses.replace(record, path=(dense, *rest)))
    assert "The path lacks point 1: this record was changed by hand, or damaged." in page
    assert "The widths of the layers do not go with the path" in page
    assert 'data-chart="strip"' not in page
    assert 'data-chart="strip"' in render(record)
    assert "this record was changed" not in render(record)


def test_a_path_without_fine_tuning_has_no_row_of_that_name() -> None:
    usual = fixed_record()
    assert shown_path(usual) == usual.path
    *points, tuned = usual.path
    walked = fixed_record(settings={"finetune_epochs": 0.0}, path=usual.path)
    assert [point.phase for point in shown_path(walked)] == ["dense", "depth", "width"]
    smaller = dataclasses.replace(tuned, macs=tuned.macs - 1)
    cut = fixed_record(settings={"finetune_epochs": 0.0}, path=(*points, smaller))
    assert [point.phase for point in shown_path(cut)] == ["dense", "depth", "width", "end"]
    assert "finetune 3" not in render(walked) + render(cut)
    assert "end 3" in render(cut)


def test_blocks_that_come_back_are_explained() -> None:
    usual = fixed_record()
    assert path_remarks(usual) == ()
    dense, depth, width, tuned = usual.path
    back = fixed_record(path=(dense, depth, dataclasses.replace(width, blocks_left=3), tuned))
    (remark,) = path_remarks(back)
    assert remark.startswith("width goes on from an earlier network, with 3 blocks and not 2: ")
    assert "Width goes on from an earlier network" in render(back)
    assert remark in str(back)
