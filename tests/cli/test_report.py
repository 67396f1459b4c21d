"""`amsc report` writes the page of a run, or of several, and over nothing that is not its own."""

import json
from pathlib import Path

import pytest

from amsc.cli import main
from amsc.records import Record, to_json
from amsc.report import render
from report.fixed import fixed_record


def folder_of(path: Path, record: Record) -> Path:
    path.mkdir(parents=True)
    (path / "record.json").write_text(to_json(record))
    return path


def test_a_report_is_drawn_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = folder_of(tmp_path / "run", fixed_record())
    (run / "report.html").write_text("an old one")
    assert main(["report", str(run), "--json"]) == 0
    assert (run / "report.html").read_text(encoding="utf-8") == render(fixed_record())
    assert json.loads(capsys.readouterr().out) == {"report": str(run / "report.html"), "runs": [str(run)]}


def test_runs_are_compared_under_names_that_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [folder_of(tmp_path / name / "run", fixed_record()) for name in ("one", "two")]
    out = tmp_path / "pages" / "both.html"
    assert main(["report", *map(str, runs), "--out", str(out)]) == 0
    assert all(str(run) in out.read_text(encoding="utf-8") for run in runs)
    assert main(["report", *map(str, runs), "--out", str(out)]) == 0, "a page of ours may be written anew"
    third = folder_of(tmp_path / "third", fixed_record(data="cifar10"))
    assert main(["report", str(runs[0]), str(third), "--out", str(out)]) == 4
    assert "the first is on digits, the other on cifar10" in capsys.readouterr().err


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = folder_of(tmp_path / "run", fixed_record())
    mine = tmp_path / "mine.html"
    mine.write_text("my own page")
    assert main(["report", str(run), "--out", str(mine)]) == 8
    assert mine.read_text() == "my own page"
    assert main(["report", str(run), "--out", str(tmp_path)]) == 8
    assert main(["report", str(run), str(run / ".." / "run")]) == 2
    assert main(["report", str(tmp_path / "nowhere")]) == 8
    errors = capsys.readouterr().err
    for words in ("is no report of amsc", "is a folder", "named twice", "is not there"):
        assert words in errors
