"""Pages of words as aligned text, and as HTML in which everything is escaped."""

from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

import pytest

from amsc.errors import AmscError
from amsc.words.page import Page, Section, as_html, as_text, first_rows
from amsc.words.shown import Shown

TABLE = Section(("name", ">size"), (("a", "10"), ("<b>&\nb", "7")), "and <1> more")
PAGE = Page("Title <script>", ("a line",), (TABLE,), "more: page.rest")


class Reader(HTMLParser):
    """The text of a page and the tags around it; every tag must be closed by the one that opened it."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.cells.append(data)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert not reader.open
    return reader


@dataclass(frozen=True, repr=False)
class Value(Shown):
    inner: Any = 1

    def page(self) -> Page:
        return PAGE

    def in_a_line(self) -> str:
        return f"inner={self.inner}"


def test_text_is_aligned() -> None:
    assert as_text(PAGE).splitlines() == [
        "Title <script>",
        "  a line",
        "  name    size",
        "  a         10",
        "  <b>& b     7",
        "  and <1> more",
        "  more: page.rest",
    ]


def test_long_cells_are_cut_off_and_tables_kept_apart() -> None:
    page = Page("Title", sections=(Section(("x",), (("y" * 500,),)), TABLE))
    lines = as_text(page).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[3].endswith("y…")
    assert lines.count("") == 2


def test_html_is_escaped_and_well_formed() -> None:
    reader = read(as_html(PAGE))
    assert reader.tags == {"div", "p", "strong", "em", "table", "thead", "tbody", "tr", "th", "td"}
    assert "Title <script>" in reader.cells
    assert "<b>&\nb" in reader.cells


def test_rows_that_are_left_out_are_counted() -> None:
    rows = [(str(i),) for i in range(5)]
    (section,) = first_rows(("n",), rows, 3, "numbers")
    assert len(section.rows) == 3
    assert section.note == "and 2 more numbers"
    assert first_rows(("n",), rows, 5, "numbers")[0].note == ""
    assert first_rows(("n",), [], 3, "numbers") == ()


def test_a_shown_value_has_its_forms() -> None:
    value = Value()
    assert repr(value) == "Value(inner=1)"
    assert str(value) == as_text(PAGE)
    assert value._repr_html_() == as_html(PAGE)
    assert value.to_json() == '{"inner": 1}'
    with pytest.raises(AmscError, match=r"Value cannot be written as JSON: .*object"):
        Value(object()).to_json()
