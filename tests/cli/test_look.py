"""`inspect` and `measure`: what they show, and that --json is one object and nothing else."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from amsc import surgery
from amsc.cli import main
from amsc.models import open_model
from amsc.settings import RunSettings, write_settings
from amsc.structure import trace

NOISY = """
import torch
def build():
    print("noise on standard output")
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 5, 3))
"""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_inspect_shows_groups_blocks_and_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "digits_resnet"]) == 0
    text = capsys.readouterr().out
    assert "channel groups" in text
    assert "removable blocks" in text
    assert "layer1.0.conv1" in text
    assert "MACs per channel" in text


def test_inspect_as_json_agrees_with_the_structure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "digits_resnet", "--json"]) == 0
    payload = json.loads(capsys.readouterr().out)
    structure = trace(open_model("digits_resnet").eval(), torch.zeros(1, 1, 8, 8))
    assert payload["macs"] == structure.macs()
    assert [g["name"] for g in payload["groups"]] == [g.name for g in structure.channels]
    assert [b["name"] for b in payload["blocks"]] == [b.name for b in structure.blocks]
    for group in payload["groups"]:
        one_less = structure.macs({group["name"]: [0]})
        assert group["macs_per_channel"] == structure.macs() - one_less


def test_inspect_writes_its_json_where_told_and_never_over_something(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["inspect", "digits_resnet", "--out", str(tmp_path / "seen"), "--json"]
    assert main(words) == 0
    payload = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "seen" / "structure.json").read_text()) == payload
    assert main(words) == 8


def test_explain_says_who_shares_the_axis(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "digits_resnet", "--explain", "layer1.0.conv1.weight"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("layer1.0.conv1.weight (16, 16, 3, 3)\n")
    assert "layer1.0.conv2.weight[1]" in text


def test_names_with_brackets_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "digits_resnet", "--explain", "layer1.0.conv1.weight"]) == 0
    assert "[1]" in capsys.readouterr().out


def test_measure_shows_every_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", "digits_resnet", "--runs", "2"]) == 0
    text = capsys.readouterr().out
    for word in ("parameters", "size", "MACs", "latency, median of 2", "peak memory", "±"):
        assert word in text


@pytest.mark.parametrize("words", [["--json"], ["--json", "--quiet"]])
def test_json_is_one_object_even_if_the_model_prints(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / f"noisy_{len(words)}.py").write_text(NOISY)
    assert main(["measure", f"noisy_{len(words)}:build", "--input-shape", "2,3,8,8", "--runs", "1", *words]) == 0
    captured = capsys.readouterr()
    payload = json.loads(captured.out)
    assert payload["measurement"]["macs"] == 2 * (36 * 4 * 27 + 16 * 5 * 36)
    assert "noise on standard output" in captured.err
    assert ("parameters" in captured.err) == ("--quiet" not in words)


def test_measure_of_an_unknown_network_asks_for_the_shape(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "noisy_shape.py").write_text(NOISY)
    assert main(["measure", "noisy_shape:build"]) == 3
    assert "--input-shape" in capsys.readouterr().err


def test_data_fit_the_model_to_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", "resnet20", "--data", "digits", "--runs", "1", "--json"]) == 0
    on_digits = json.loads(capsys.readouterr().out)["measurement"]
    assert main(["measure", "digits_resnet", "--runs", "1", "--json"]) == 0
    assert on_digits["macs"] == json.loads(capsys.readouterr().out)["measurement"]["macs"]


def test_measure_takes_a_saved_model_with_what_it_was_cut_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = open_model("digits_resnet").eval()
    example = torch.zeros(1, 1, 8, 8)
    plan = surgery.plan_cut(trace(model, example), channels={"layer1.0.conv1": [0, 1, 2]})
    small: nn.Module = surgery.cut(model, plan)
    surgery.save(small, tmp_path / "run" / "model")
    write_settings(
        tmp_path / "run" / "settings.toml", RunSettings(model="digits_resnet", num_classes=10, in_channels=1)
    )
    for folder in ("run", "run/model"):
        assert main(["measure", folder, "--runs", "1", "--json"]) == 0
        cost = json.loads(capsys.readouterr().out)["measurement"]
        assert (cost["macs"], cost["parameters"]) == (plan.macs, plan.parameters)
    assert main(["measure", "run", "--weights", "x.pt"]) == 2
