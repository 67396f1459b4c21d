"""`amsc scan` on the embedded digits."""

import json
from pathlib import Path

import pytest

from amsc.cli import main
from amsc.records import ScanRecord, from_json

WORDS = ["scan", "digits_resnet", "--data", "digits", "--limit", "200", "--examples", "40"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


def test_a_table_with_bars(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(WORDS) == 0
    captured = capsys.readouterr()
    assert "predicted loss" in captured.out
    assert "100.0%" in captured.out
    assert "nothing was trained" in captured.err
    assert "no --weights" in captured.err
    assert "validation" not in captured.out


def test_one_object_and_two_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*WORDS, "--target", "macs=60%", "--target", "macs=0.3", "--dimensions", "width", "--evaluate", "--latency"]
    words += ["--reconstruction", "64"]
    assert main([*words, "--json", "--quiet", "--out", str(tmp_path / "seen")]) == 0
    payload = json.loads(capsys.readouterr().out)["scan"]
    assert payload["dimensions"] == "width"
    assert payload["points"][0]["share"] == 1.0
    assert [point["share"] for point in payload["points"][1:]] == [0.6, 0.3]
    assert all(point["score"] is not None and point["latency_seconds"] > 0 for point in payload["points"])
    assert all(point["seen_increase"] is not None for point in payload["points"])
    assert all(point["score_reconstructed"] is not None for point in payload["points"])
    assert all(point["repaired"]["examples"] == 64 for point in payload["points"][1:])
    record = from_json(ScanRecord, (tmp_path / "seen" / "scan.json").read_text())
    assert record == from_json(ScanRecord, json.dumps(payload))
    page = (tmp_path / "seen" / "scan.html").read_text()
    drawn = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert [point["macs"] for point in drawn["path"]] == [point["macs"] for point in payload["points"]]
    assert "default-src &#39;none&#39;" in page, "it may ask nobody for anything"
    assert main([*words, "--out", str(tmp_path / "seen")]) == 8, "what is there is not overwritten"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["scan", "digits_resnet"], 2, "--data DATA is missing"),
        (["scan", "--data", "digits"], 2, "MODEL is missing"),
        ([*WORDS, "--target", "macs=120%"], 5, "below 100 %"),
        ([*WORDS, "--target", "latency=3ms"], 5, "a scan is for shares of the MACs"),
        ([*WORDS, "--target", "macs=1%", "--dimensions", "depth"], 5, "lowest reachable share"),
        ([*WORDS, "--dimensions", "widht"], 2, "did you mean width?"),
        ([*WORDS, "--examples", "0"], 2, "examples: expected a whole number"),
        ([*WORDS, "--keep", "*"], 5, "nothing in this network can be removed"),
    ],
)
def test_mistakes(words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--quiet"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err


def test_help_describes_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scan", "--help"]) == 0
    text = capsys.readouterr().out
    assert "examples:\n  amsc scan" in text
    for flag in (
        "--evaluate",
        "--latency",
        "--dimensions",
        "--examples",
        "--reconstruction",
        "--out",
        "--seed",
        "--device",
        "--currency",
    ):
        assert flag in text
