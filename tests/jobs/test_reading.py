"""The record of a folder, or why there is none."""

import json
from pathlib import Path
from typing import Any

import pytest

from amsc.errors import RunFolderError
from amsc.jobs.reading import read_record, so_far
from amsc.records import to_json
from report.fixed import fixed_record


def written(folder: Path, **changes: Any) -> Path:
    """A run folder whose record has been changed."""
    folder.mkdir(parents=True)
    plain = json.loads(to_json(fixed_record())) | changes
    (folder / "record.json").write_text(json.dumps(plain))
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(RunFolderError) as failure:
        read_record(folder, "0.1.0")
    return str(failure.value)


def test_a_record_is_read(tmp_path: Path) -> None:
    assert read_record(written(tmp_path / "run"), "0.1.0") == fixed_record()


def test_what_a_run_has_come_to(tmp_path: Path) -> None:
    assert so_far(tmp_path) == "so far: 0 points of the path"
    (tmp_path / "path.jsonl").write_text('{"phase": "dense"}\n{"phase": "depth"}\n')
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "search.jsonl").write_text('{"key": "1"}\n{"key": "2"}\n')
    assert so_far(tmp_path) == "so far: 1 point of the path, 2 findings of the search for the next"


def test_a_run_that_is_half_written(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("")
    (tmp_path / "path.jsonl").write_text('{"phase": "dense"}\n{"phase": "depth"}\n{"phase": "depth"}\n')
    words = refusal(tmp_path)
    assert words.startswith(f"the run in {tmp_path} is not finished: it has 2 points of its path")
    assert words.endswith(f"amsc resume {tmp_path}")


def test_a_record_that_was_cut_off_or_edited_by_hand(tmp_path: Path) -> None:
    file = written(tmp_path / "run") / "record.json"
    file.write_text(file.read_text()[:500])
    assert "is damaged, or was changed by hand" in refusal(tmp_path / "run")
    edited = written(tmp_path / "edited", score_before="high")
    assert 'score_before: expected a number, got "high"' in refusal(edited)
    file.write_bytes(b"\xff\xfe")
    assert refusal(tmp_path / "run").startswith(f"cannot read {file}: ")


def test_a_record_of_a_newer_amsc(tmp_path: Path) -> None:
    words = refusal(written(tmp_path / "run", energy_joules=3.0, versions={"amsc": "9.0"}))
    assert "unknown fields ['energy_joules']" in words
    assert "it was written by amsc 9.0, and this is 0.1.0" in words
    assert "written by amsc unknown" in refusal(written(tmp_path / "odd", energy_joules=3.0, versions=[]))


def test_folders_that_hold_no_run(tmp_path: Path) -> None:
    assert refusal(tmp_path).endswith("there is no record.json, it is empty")
    (tmp_path / "notes.txt").write_text("")
    assert refusal(tmp_path).endswith("there is no record.json, it holds notes.txt")
    assert refusal(tmp_path / "notes.txt").endswith("notes.txt is a file")
    assert refusal(tmp_path / "nowhere").endswith("nowhere is not there")
