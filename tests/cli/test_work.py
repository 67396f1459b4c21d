"""The whole job through the command line: run folder, JSON, settings that repeat it, stopping and going on."""

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from amsc.cli import main
from amsc.cli.demo import faults
from amsc.records import Record, from_json
from amsc.settings import read_settings
from report.fixed import fixed_record

TINY = ["--dense-epochs", "1", "--path-epochs", "1", "--finetune-epochs", "0.5", "--path-points", "2"]
WORDS = ["compress", "digits_resnet", "--data", "digits", "--target", "macs=70%", *TINY, "--threads", "1"]
ESSENTIAL = ("removed_blocks", "removed_channels", "score_before", "score_after", "path")


def _essential(record: dict[str, object]) -> dict[str, object]:
    return {key: record[key] for key in ESSENTIAL}


def test_a_pick_is_named_after_its_target(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    targets = [("drop=90%", "drop-90-percent"), ("params=250k, macs=90%", "macs-0.9-params-250k")]
    for target, name in targets:
        assert main(["pick", str(run_folder), "--target", target, "--finetune-epochs", "0", "--json"]) == 0
        (picked,) = json.loads(capsys.readouterr().out)["picks"]
        assert Path(picked["run"]).name == name


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work") / "run"
    assert main([*WORDS, "--out", str(folder), "--quiet"]) == 0
    return folder


def test_the_run_folder_holds_everything(run_folder: Path) -> None:
    for name in ("settings.toml", "path.jsonl", "record.json", "report.html", "model/config.json"):
        assert (run_folder / name).is_file(), name
    record = from_json(Record, (run_folder / "record.json").read_text())
    assert record.after.macs < record.before.macs
    assert record.verification_error <= 1e-5
    run = read_settings(run_folder / "settings.toml")
    assert (run.model, run.data, run.target) == ("digits_resnet", "digits", "macs=70%")
    assert (run.num_classes, run.in_channels, run.settings.path_points) == (10, 1, 2)


def test_the_code_in_its_report_loads_the_network(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (run_folder / "report.html").read_text(encoding="utf-8")
    found = re.search(r'(?s)<code id="code">(.*?)</code>', page)
    assert found is not None
    names: dict[str, Any] = {}
    monkeypatch.chdir(run_folder)
    exec(html.unescape(found[1]), names)
    record = from_json(Record, (run_folder / "record.json").read_text())
    assert sum(parameter.numel() for parameter in names["small"].parameters()) == record.after.parameters


def test_its_settings_repeat_the_run(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "again"
    assert main(["compress", "--settings", str(run_folder / "settings.toml"), "--out", str(out), "--json"]) == 0
    payload = json.loads(capsys.readouterr().out)
    assert payload["run"] == str(out)
    first = json.loads((run_folder / "record.json").read_text())
    assert _essential(payload["record"]) == _essential(first)


def test_rounding_is_written_down_and_read_back(run_folder: Path, tmp_path: Path) -> None:
    assert read_settings(run_folder / "settings.toml").settings.round_to == "auto"
    words = ["scan", "digits_resnet", "--data", "digits", "--quiet"]
    for way in ("auto", "1"):
        assert main([*words, "--round-to", way, "--out", str(tmp_path / way)]) == 0
    rounded, exact = (json.loads((tmp_path / way / "scan.json").read_text())["points"] for way in ("auto", "1"))
    assert rounded[1]["removed_channels"] != exact[1]["removed_channels"]


def test_limits_are_flags_and_are_written_down(tmp_path: Path) -> None:
    out = tmp_path / "limited"
    limits = ["--keep", "layer1*", "--keep", "layer3.2", "--round-to", "8", "--min-channels", "16"]
    limits += ["--minimum", "layer3.1=32", "--minimum", "layer3.0=40"]
    assert main([*WORDS, *limits, "--out", str(out), "--quiet"]) == 0
    settings = read_settings(out / "settings.toml").settings
    assert (settings.keep, settings.round_to, settings.min_channels) == (("layer1*", "layer3.2"), 8, 16)
    assert settings.minimum == ("layer3.1=32", "layer3.0=40")
    record = from_json(Record, (out / "record.json").read_text())
    touched = [*record.removed_channels, *record.removed_blocks]
    assert touched
    assert not [name for name in touched if name.startswith(("layer1", "layer3.2"))]
    assert {len(gone) % 8 for gone in record.removed_channels.values()} <= {0}


def test_the_saved_model_is_as_big_as_the_record_says(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads((run_folder / "record.json").read_text())
    assert main(["measure", str(run_folder), "--runs", "1", "--json"]) == 0
    cost = json.loads(capsys.readouterr().out)["measurement"]
    assert cost["parameters"] == record["after"]["parameters"]
    assert cost["macs"] == record["after"]["macs"]


def test_a_run_is_exported(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "small.pt2"
    assert main(["export", str(run_folder), "--pt2", str(path), "--json"]) == 0
    (file,) = json.loads(capsys.readouterr().out)["files"]
    assert (file["path"], file["bytes"], file["dynamic_batch"]) == (str(path), path.stat().st_size, True)
    program = torch.export.load(path)
    record = json.loads((run_folder / "record.json").read_text())
    assert (
        sum(program.state_dict[name].numel() for name in program.graph_signature.parameters)
        == (record["after"]["parameters"])
    )
    assert main(["export", str(run_folder)]) == 2
    assert "--onnx FILE" in capsys.readouterr().err


def test_ctrl_c_says_how_to_go_on_and_resume_ends_as_if_nothing_had_happened(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Stopper:
        def update(self, phase: str, step: int, steps: int, **values: float) -> None:
            if phase == "width":
                raise KeyboardInterrupt

    class Context:
        def __enter__(self) -> Stopper:
            return Stopper()

        def __exit__(self, *_: object) -> None:
            return None

    out = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr("amsc.cli.console.Console.progress", lambda console: Context())
        assert main([*WORDS, "--out", str(out)]) == 130
    said = capsys.readouterr().err
    assert f"amsc resume {out}" in said
    assert said.count(f"run folder: {out}") == 1
    assert not (out / "record.json").exists()
    assert main(["resume", str(out), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)["record"]
    assert _essential(record) == _essential(json.loads((run_folder / "record.json").read_text()))


def test_resuming_a_finished_run_shows_it_and_changes_nothing(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run_folder / "record.json").read_bytes()
    assert main(["resume", str(run_folder)]) == 0
    assert "removed blocks" in capsys.readouterr().out
    assert (run_folder / "record.json").read_bytes() == before


def test_a_target_out_of_reach_says_what_is_within_it_and_leaves_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compress", "digits_resnet", "--data", "digits", "--target", "macs=0.1%", "--out", str(tmp_path / "run")]
    assert main(words) == 5
    said = capsys.readouterr().err
    assert "lowest reachable target" in said
    assert "run folder" not in said, "there is none"
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_its_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main([*WORDS, "--dense-learning-rate", "1e20", "--out", str(out)]) == 7
    assert "the loss was no number" in capsys.readouterr().err
    assert read_settings(out / "settings.toml").settings.dense_learning_rate == 1e20


def test_paths_in_the_settings_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from amsc.cli.opening import absolute
    from amsc.settings import RunSettings

    monkeypatch.chdir(tmp_path)
    run = absolute(RunSettings(data="parquet:here", weights="w.pt"))
    assert (run.data, run.weights) == (f"parquet:{tmp_path / 'here'}", str(tmp_path / "w.pt"))
    assert absolute(RunSettings(data="digits")).data == "digits"
    assert absolute(RunSettings(data="mine:load")).data == "mine:load"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"removed_blocks": ()}, ["no block was removed"]),
        ({"removed_channels": {"a": ()}}, ["no filter was removed"]),
        ({"target": "macs=40%"}, ["49.92% of the MACs are left, expected 40% within 1% of that"]),
        ({"score_after": 0.9}, ["accuracy fell from 98.00% to 90.00%"]),
        ({"score_after": float("nan")}, ["accuracy fell from 98.00% to nan%"]),
    ],
)
def test_the_demo_knows_what_is_wrong(changes: dict[str, object], words: list[str]) -> None:
    assert faults(fixed_record(**changes)) == words


@pytest.mark.parametrize(
    ("wrong", "code", "words"),
    [
        (["--keep", "layr3"], 2, "did you mean layer3?"),
        (["--minimum", "layr3=4"], 2, "did you mean layer3?"),
        (["--minimum", "layer3"], 2, "expected NAME=N"),
        (["--target", "macs=0.01%"], 5, "the lowest"),
    ],
)
def test_what_is_refused_before_it_began_leaves_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: list[str], code: int, words: str
) -> None:
    assert main([*WORDS, *wrong, "--out", str(tmp_path / "run")]) == code
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
