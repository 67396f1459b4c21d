"""`inspect` and `measure`: what they show, and that --json is one object and nothing else."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console as RichConsole
from torch import Tensor, nn

from amsc import surgery
from amsc.cli import main
from amsc.cli.console import Console
from amsc.cli.inspect_tables import View, show
from amsc.cli.outline import outline
from amsc.models import open_model
from amsc.settings import RunSettings, write_settings
from amsc.structure import Pin, trace
from amsc.structure.costing import predicted_macs
from amsc.words.amounts import format_seconds

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
    assert "layer1.0-2.conv1 (3 alike)" in text
    assert "MACs per channel" in text


TRANSFORMER = """
import torch
from torch import Tensor, nn
class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.qkv, self.proj = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)
    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).view(1, 4, 3, 2, 8).unbind(2)
        x = x + self.proj(torch.einsum("bihd,bjhd,bjhe->bihe", q, k, v).reshape(1, 4, 16))
        return x + self.down(self.up(x).relu())
def build():
    return nn.Sequential(nn.Linear(3, 16), *[Layer() for _ in range(12)], nn.Linear(16, 5))
"""
FIXED = """
from torch import Tensor, nn
class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(144, 5)
    def forward(self, x):
        return self.fc(self.conv(x).relu().view(-1, 144))
"""


def test_repeated_layers_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "twelve.py").write_text(TRANSFORMER)
    assert main(["inspect", "twelve:build", "--input-shape", "1,4,3", "--tree", "--groups", "--blocks", "--pins"]) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) < 90
    assert "1-12 (12 alike)" in text
    assert "1-12.up (12 alike)" in text
    assert "aten" not in text


def test_a_section_is_shown_alone_and_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    shown = {"tree": "BatchNorm2d", "groups": "MACs per channel", "blocks": "removable blocks", "pins": "why they stay"}
    for section in shown:
        assert main(["inspect", "resnet20", f"--{section}"]) == 0
        text = capsys.readouterr().out
        assert [name for name, words in shown.items() if words in text] == [section]
        assert "more rows" not in text
        assert "more lines" not in text
    assert main(["inspect", "vgg16", "--tree", "--depth", "1"]) == 0
    assert "more lines below" in capsys.readouterr().out
    assert main(["inspect", "vgg16", "--depth", "0"]) == 2


def test_the_tree_counts_every_parameter_and_mac_once(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("resnet20", "densenet40"):
        assert main(["inspect", name, "--json", "--quiet", "--no-trial"]) == 0
        payload = json.loads(capsys.readouterr().out)
        total = payload["modules"][0]
        assert (total["name"], total["parameters"], total["macs"]) == ("", payload["parameters"], payload["macs"])
        tops = [module for module in payload["modules"] if module["name"] and "." not in module["name"]]
        assert sum(module["parameters"] for module in tops) == payload["parameters"]
        assert sum(module["macs"] for module in tops) == payload["macs"]
        assert [m["name"] for m in payload["modules"] if m["is_block"]] == [b["name"] for b in payload["blocks"]]


def test_what_is_said_to_go_has_been_tried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`view(-1, 144)` is met only when the cut network runs."""
    (tmp_path / "fixed.py").write_text(FIXED)
    exact = {}
    for words in ([], ["--no-trial"]):
        assert main(["inspect", "fixed:Fixed", "--input-shape", "1,3,8,8", "--json", *words]) == 0
        payload = json.loads(capsys.readouterr().out)
        assert payload["tried"] == (not words)
        exact[payload["tried"]] = [group["exact"] for group in payload["groups"] if group["name"] == "conv"]
    assert exact == {True: [False], False: [True]}


def test_a_module_around_one_module_needs_no_line_of_its_own() -> None:
    model = nn.Sequential(nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))), nn.Linear(4, 2))
    named = nn.Module()
    named.add_module("body", model)
    named.forward = model.forward  # type: ignore[method-assign]
    root = outline(named, trace(named, torch.zeros(1, 4)))
    assert [child.label for child in root.children] == ["body"]
    outer = nn.Sequential()
    outer.add_module("a", nn.Sequential())
    outer.a.add_module("b", nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)))  # type: ignore[operator]
    (only,) = outline(outer, trace(outer, torch.zeros(1, 4))).children
    assert (only.label, only.name, len(only.children)) == ("a.b", "a.b", 2)


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_lines_fit_the_terminal(width: int) -> None:
    model, stream = open_model("densenet40").eval(), io.StringIO()
    structure = trace(model, torch.zeros(1, 3, 32, 32))
    console = Console(stream, io.StringIO())
    console.results = RichConsole(file=stream, width=width)
    show(View("densenet40", structure), outline(model, structure), console)
    drawn = [line for line in stream.getvalue().splitlines() if not line.startswith(("can go", "densenet40"))]
    assert max(len(line) for line in drawn) <= width
    assert "119.4 M   42.2%" in stream.getvalue(), "no number is cut off"
    assert ("BatchNorm2d" in stream.getvalue() or "DenseLayer" in stream.getvalue()) == (width >= 100)


def test_pins_of_one_line_of_code_are_one_row() -> None:
    """Whatever layer it ran in; another line that does the same is another row."""
    structure = trace(open_model("digits_resnet").eval(), torch.zeros(1, 1, 8, 8))
    pins = [
        Pin(f"layer{1 + i}.0.conv1.weight", 0, 4, f"aten.view.default in layer{1 + i}.0 splits the axis", source)
        for source in ("net.py:12: x = x.view(a, b)", "net.py:30: y = y.view(c)")
        for i in range(3)
    ]
    stream = io.StringIO()
    view = View("net", replace(structure, pins=tuple(pins)))
    show(view, outline(nn.Sequential(), structure), Console(stream, io.StringIO()), sections=["pins"])
    lines = [" ".join(line.split()) for line in stream.getvalue().splitlines()]
    row = "a reshape (view) splits the axis, in layer1-3.0 3 layer1-3.0.conv1.weight[0]"
    assert [line for line in lines if line.startswith(("a reshape", "net.py"))] == [
        row,
        "net.py:12: x = x.view(a, b)",
        row,
        "net.py:30: y = y.view(c)",
    ]


def test_inspect_as_json_agrees_with_the_structure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "digits_resnet", "--json"]) == 0
    payload = json.loads(capsys.readouterr().out)
    structure = trace(open_model("digits_resnet").eval(), torch.zeros(1, 1, 8, 8))
    assert payload["macs"] == predicted_macs(structure)
    assert [g["name"] for g in payload["groups"]] == [g.name for g in structure.channels]
    assert [b["name"] for b in payload["blocks"]] == [b.name for b in structure.blocks]
    for group in payload["groups"]:
        one_less = predicted_macs(structure, {group["name"]: [0]})
        assert group["macs_per_channel"] == predicted_macs(structure) - one_less


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


def test_inspect_shows_what_the_limits_leave(capsys: pytest.CaptureFixture[str]) -> None:
    limits = ["--keep", "layer1", "--keep", "layer2.1", "--round-to", "24", "--min-channels", "40"]
    assert main(["inspect", "digits_resnet", *limits, "--json"]) == 0
    captured = capsys.readouterr()
    payload = json.loads(captured.out)
    assert payload["kept_blocks"] == ["layer1.0", "layer1.1", "layer1.2", "layer2.1"]
    fewest = {group["name"]: group["fewest"] for group in payload["groups"]}
    assert fewest["layer1.0.conv1"] == 16
    assert fewest["layer2.0.conv1"] == 32, "40 channels or more would be left"
    assert fewest["layer3.0.conv1"] == 48
    assert "kept as you say: layer1.0-2, layer2.1" in captured.err
    assert main(["inspect", "digits_resnet", "--only", "layr1"]) == 2
    assert "did you mean layer1?" in capsys.readouterr().err


def test_explain_takes_modules_and_globs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "digits_resnet", "--explain", "layer1.0.bn1"]) == 0
    text = capsys.readouterr().out
    for tensor in ("weight", "bias", "running_mean", "running_var"):
        assert f"layer1.0.bn1.{tensor} (16,)" in text
    assert main(["inspect", "digits_resnet", "--explain", "layer1.*.conv?.weight"]) == 0
    text = capsys.readouterr().out
    assert [line.split()[0] for line in text.splitlines() if not line.startswith(" ")] == [
        f"layer1.{block}.conv{number}.weight" for block in range(3) for number in (1, 2)
    ]
    assert main(["inspect", "digits_resnet", "--explain", "layr1"]) == 6
    assert "did you mean layer1?" in capsys.readouterr().err


def test_names_with_brackets_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "digits_resnet", "--explain", "layer1.0.conv1.weight"]) == 0
    assert "[1]" in capsys.readouterr().out


def test_measure_shows_every_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", "digits_resnet", "--runs", "2"]) == 0
    text = capsys.readouterr().out
    for word in ("parameters", "size", "MACs", "latency in torch, median of 2", "peak memory", "±"):
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
    assert main(["measure", "run", "--runs", "2", "--runtime", "onnxruntime"]) == 0
    assert "latency in onnxruntime, median of 2" in capsys.readouterr().out
    for folder in ("run", "run/model"):
        assert main(["measure", folder, "--runs", "1", "--json"]) == 0
        cost = json.loads(capsys.readouterr().out)["measurement"]
        assert (cost["macs"], cost["parameters"]) == (plan.macs, plan.parameters)
    assert main(["measure", "run", "--weights", "x.pt"]) == 2


@pytest.mark.parametrize(("seconds", "is_slow"), [(0.5e-3, False), (1.2e-3, True)])
def test_an_exported_run_is_timed_beside_its_dense_network(
    seconds: float, is_slow: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[int] = []

    def clock(models: list[nn.Module], inputs: torch.Tensor) -> list[tuple[float, float]]:
        timed.extend(sum(p.numel() for p in model.parameters()) for model in models)
        return [(1e-3, 0.0), (seconds, 0.0)]

    monkeypatch.setattr("amsc.cli.export.CLOCKS", {"onnxruntime": clock})
    model = open_model("digits_resnet").eval()
    example = torch.zeros(1, 1, 8, 8)
    plan = surgery.plan_cut(trace(model, example), channels={"layer1.0.conv1": [0, 1, 2]})
    surgery.save(surgery.cut(model, plan), tmp_path / "run" / "model")
    write_settings(
        tmp_path / "run" / "settings.toml", RunSettings(model="digits_resnet", num_classes=10, in_channels=1)
    )
    assert main(["export", "run", "--onnx", "small.onnx", "--fixed-batch"]) == 0
    told = capsys.readouterr()
    dense, small = timed
    assert small < dense
    assert f"onnxruntime: {format_seconds(seconds)}, the dense network 1 ms ({1e3 * seconds:.2f} of it)" in told.out
    assert ("hardly faster" in told.err) == is_slow
    assert ("1 layers are no longer a multiple of 8 wide, such as layer1.0.conv1.weight" in told.err) == is_slow


class FixedHeads(nn.Module):
    """Attention whose heads and head sizes stay: its reshape names both, and the quotient of two widths."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, length, 3, 4, width // 4).permute(2, 0, 3, 1, 4)
        mixed = ((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).reshape(batch, length, width)
        read: Tensor = self.out(mixed)
        return read


def test_why_a_trial_failed_is_said_once() -> None:
    """Heads and head sizes of two layers fail alike: their numbers differ, and nothing else."""
    model, inputs = nn.Sequential(FixedHeads(), FixedHeads()).eval(), torch.randn(2, 5, 8)
    structure = surgery.cuttable(model, trace(model, inputs), inputs)
    stream = io.StringIO()
    show(View("mine", structure), outline(model, structure), Console(stream, io.StringIO()))
    text = stream.getvalue()
    assert text.count("is invalid for input of size") == 1
    assert "no: the trial failed, see below" in text
