"""The rows of the report say what the record says."""

import dataclasses
from dataclasses import replace

import pytest

from amsc.report import Row, before_after, group_rows
from amsc.words.amounts import format_bytes, format_count, format_score, format_seconds
from amsc.words.record import path_words
from report.fixed import fixed_record


def _rows(**changes: object) -> dict[str, Row]:
    return {row.name: row for row in before_after(fixed_record(**changes))}


def test_costs_are_relative_and_accuracy_is_in_points() -> None:
    rows = _rows()
    assert rows["accuracy (test)"] == Row("accuracy (test)", "98.00%", "97.50%", "-0.50 points")
    assert rows["MACs"] == Row("MACs", "12.5 M", "6.24 M", "-50.1%")
    assert rows["latency"] == Row("latency", "2.1 ms ± 100 µs", "1.3 ms ± 50 µs", "-38.1%")
    assert rows["size"] == Row("size", "308 KiB", "120 KiB", "-61.0%")
    noisy = _rows(after=dataclasses.replace(fixed_record().after, latency_spread_seconds=0.9e-3))
    assert noisy["latency"].change == "-38.1% (within the spread)"


def test_channels_of_removed_blocks_count_as_gone() -> None:
    assert _rows()["removable channels"] == Row("removable channels", "112", "75", "-37")
    assert _rows(path=())["removable channels"].after == "107", "only the five removed alone are known then"
    assert _rows()["removable blocks"] == Row("removable blocks", "3", "2", "-1")


def test_other_scores_are_not_percentages() -> None:
    rows = _rows(score_name="r2", score_before=1.5, score_after=1.25)
    assert rows["r2 (test)"] == Row("r2 (test)", "1.5", "1.25", "-0.25")
    rows = _rows(score_name="mean IoU", score_before=0.5, score_after=0.25)
    assert rows["mean IoU (test)"] == Row("mean IoU (test)", "50.00%", "25.00%", "-25.00 points")


def test_nothing_before_and_undefined_scores_do_not_break_the_table() -> None:
    empty = dataclasses.replace(fixed_record().before, macs=0, latency_seconds=0.0)
    rows = _rows(before=empty, score_before=float("nan"))
    assert rows["MACs"].change == "-"
    assert rows["accuracy (test)"].before == "-"
    assert rows["accuracy (test)"].change == "-"


def test_groups_show_runs_of_indices_and_leave_out_untouched_ones() -> None:
    groups = group_rows(fixed_record())
    assert [(g.name, g.count, g.indices) for g in groups] == [
        ("layer1.0.conv1", 4, "0-2, 5"),
        ("layer3.0.conv1", 1, "7"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (format_count(0), "0"),
        (format_count(999), "999"),
        (format_count(1000), "1 K"),
        (format_count(4.1e9), "4.1 G"),
        (format_bytes(1023), "1023 B"),
        (format_bytes(3 * 2**20), "3 MiB"),
        (format_seconds(0.0), "0 µs"),
        (format_seconds(0.00025), "250 µs"),
        (format_seconds(1.5), "1.5 s"),
        (format_seconds(120), "2.0 min"),
        (format_score(0.9999), "99.99%"),
    ],
)
def test_numbers_have_units_that_fit_them(text: str, expected: str) -> None:
    assert text == expected


def test_the_points_of_a_path_are_counted_without_its_ends() -> None:
    record = fixed_record()
    assert [point.phase for point in record.path] == ["dense", "depth", "width", "finetune"]
    assert path_words(record) == "the dense network, 2 points and the fine-tuned network"
    assert f"path: {path_words(record)};" in str(record)
    untuned = replace(record, path=record.path[:2])
    assert path_words(untuned) == "the dense network, 1 point"
    searched = replace(record, path=(*record.path, record.path[-1]))
    assert path_words(searched) == "the dense network, 2 points and 2 fine-tuned networks"
