"""Runs are compared where that says something, and refused with the difference where it does not."""

import dataclasses
import re
from typing import Any

import pytest

from amsc.errors import AmscError, DataError, ModelError
from amsc.records import Circumstances, Record
from amsc.report import render_comparison
from amsc.report.comparison import compared_rows
from report.fixed import bare, bare_record, fixed_record


def smaller(**changes: Any) -> Record:
    """Another run of the same network: fewer multiply-adds, worse."""
    record = fixed_record(score_after=0.95, **changes)
    return dataclasses.replace(record, after=dataclasses.replace(record.after, macs=3_000_000))


def about(**changes: Any) -> Circumstances:
    known = fixed_record().about
    assert known is not None
    return dataclasses.replace(known, **changes)


def test_the_best_of_each_row_is_marked() -> None:
    rows = {name: (before, cells) for name, before, cells in compared_rows({"A": fixed_record(), "B": smaller()})}
    before, cells = rows["accuracy (test)"]
    assert before == "98.00%"
    assert [(cell.words, cell.share, cell.is_best) for cell in cells] == [
        ("97.50%", "-0.50 points", True),
        ("95.00%", "-3.00 points", False),
    ]
    assert [(cell.words, cell.is_best) for cell in rows["MACs"][1]] == [("6.24 M", False), ("3 M", True)]
    assert [cell.is_best for cell in rows["parameters"][1]] == [False, False], "all the same: none is best"
    assert list(rows) == ["accuracy (test)", "parameters", "size", "MACs", "latency", "peak memory"]


def test_the_page_has_all_runs_and_what_differs() -> None:
    other = smaller(settings={"seed": 0, "path_epochs": 8.0})
    page = bare(render_comparison({"A": fixed_record(), "<b>B</b>": other}))
    assert page == bare(render_comparison({"A": fixed_record(), "<b>B</b>": other}))
    assert "<b>B" not in page
    assert page.count("<dd>Target met: ") == 2
    assert re.search(r'<th scope="row">path_epochs</th><td class="indices">2.0</td><td class="indices">8.0</td>', page)
    assert '<th scope="row">seed</th>' not in page
    assert "Before you compare" not in page
    assert 'data-chart="layers-1"' in page


def test_what_is_only_unknown_or_elsewhere_is_told_and_not_refused() -> None:
    after = dataclasses.replace(fixed_record().after, machine={"cpu": "another", "threads": "2"})
    page = render_comparison({"A": fixed_record(), "B": bare_record(after=after)})
    assert "Latencies were measured on different machines (cpu differ)." in page
    assert "Of older records it is not known" in page
    assert 'data-chart="layers-0"' not in page


@pytest.mark.parametrize(
    ("other", "error", "words"),
    [
        (smaller(data="cifar10"), DataError, "the first is on digits, the other on cifar10"),
        (smaller(score_name="loss"), DataError, "the first is judged by accuracy, the other by loss"),
        (smaller(about=about(examples={"test": 99})), DataError, "1,078 train, 359 validation, 360 test; 99 test"),
        (smaller(about=about(fingerprints={"data": "d2"})), DataError, "hold different examples"),
        (
            smaller(before=dataclasses.replace(fixed_record().before, parameters=5_000)),
            ModelError,
            "have 78.04 K and 5 K parameters",
        ),
        (smaller(about=about(inputs=((8, 1, 8, 8),))), ModelError, "costs were counted for inputs of 1"),
        (
            smaller(before=dataclasses.replace(fixed_record().before, macs=5)),
            ModelError,
            "take 12,500,000 and 5 multiply-adds",
        ),
        (smaller(about=about(fingerprints={"network": "n2"})), ModelError, "have different weights"),
    ],
)
def test_runs_that_say_nothing_about_each_other_are_refused(other: Record, error: type[AmscError], words: str) -> None:
    with pytest.raises(error) as failure:
        render_comparison({"A": fixed_record(), "B": other})
    assert str(failure.value).startswith("A and B cannot be compared: ")
    assert words in str(failure.value)
