"""The folder of a run that was started from Python, with a model of a local class and loaders, at the command line."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from amsc import Settings, Target, compress
from amsc.cli import main
from amsc.data import LoaderData
from amsc.settings import read_settings

SETTINGS = Settings(path_epochs=0.5, path_points=2, finetune_epochs=0.5, depth_share=0.0)


class Net(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, 8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.b(self.a(x).relu()).relu().mean((2, 3)))
        return logits


def loaders() -> LoaderData:
    labels = torch.arange(48) % 3
    images = torch.randn(48, 1, 6, 6, generator=torch.Generator().manual_seed(0)) + labels.view(-1, 1, 1, 1)
    loader = DataLoader(TensorDataset(images, labels), 16)
    return LoaderData(loader, loader, loader, num_classes=3)


class Stopped(Exception):
    """Raised instead of a kill."""


class StopInWidth:
    def update(self, phase: str, step: int, steps: int, **values: float) -> None:
        if phase == "width":
            raise Stopped


@pytest.fixture(autouse=True)
def _a_module_that_makes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    module = type(sys)("handed_over")
    vars(module).update(build=lambda: Net(), wide=lambda: Net(12), loaders=loaders)
    monkeypatch.setitem(sys.modules, "handed_over", module)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, data = tmp_path_factory.mktemp("python") / "run", loaders()
    torch.manual_seed(0)
    compress(Net(), data.example_inputs(), data, target=Target(macs=0.7), settings=SETTINGS, out=path)
    return path


MODEL = ["--model", "handed_over:build"]
BOTH = [*MODEL, "--data", "handed_over:loaders"]


@pytest.mark.parametrize("words", [["measure", "{}"], ["inspect", "{}"], ["export", "{}", "--pt2", "{}.pt2"]])
def test_a_command_that_needs_the_network_asks_for_it(
    folder: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.format(folder) for word in words]
    assert main(words) == 2
    assert "started from Python with a model of class Net; give it: --model package.module:function" in (
        capsys.readouterr().err
    )
    assert main([*words, "--model", "handed_over:wide"]) == 3
    assert "another network" in capsys.readouterr().err
    assert main([*words, *MODEL, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    record = json.loads((folder / "record.json").read_text())
    if words[0] != "export":
        assert found.get("measurement", found)["macs"] == record["after"]["macs"]


def test_picking_and_resuming_ask_for_both(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["resume", str(folder)], ["pick", str(folder), "--target", "macs=80%"]):
        assert main(words) == 2
        said = capsys.readouterr().err
        assert "with a model of class Net and data called 'loader'; give them: --model" in said
        assert main([*words, *MODEL]) == 2
        assert "with data called 'loader'; give them: --data" in capsys.readouterr().err


def test_settings_of_a_run_with_objects_say_what_has_to_be_given(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compress", "--settings", str(folder / "settings.toml"), "--out", str(tmp_path / "again"), "--quiet"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "MODEL and --data DATA are missing: the settings file is of a run that was started from Python" in said
    assert "with a model of class Net and data called 'loader', which it cannot hold" in said
    assert main([*words, "handed_over:build", "--data", "handed_over:loaders"]) == 0
    one, two = (json.loads((path / "record.json").read_text()) for path in (folder, tmp_path / "again"))
    assert one["target"] == two["target"]
    assert one["before"]["macs"] == two["before"]["macs"]


def test_it_is_picked_from_and_of_the_pick_no_function_is_called_but_by_the_command_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pick", str(folder), "--target", "macs=85%", *BOTH, "--quiet"]) == 0
    picked = folder / "picks" / "macs-0.85"
    noted = read_settings(picked / "settings.toml")
    assert (noted.model, noted.data, noted.python) == ("handed_over:build", "handed_over:loaders", {})
    capsys.readouterr()
    for words in (
        ["measure", str(picked)],
        ["resume", str(picked)],
        ["compress", "--settings", f"{picked}/settings.toml"],
    ):
        assert main(words) == 2
        assert "handed_over:build" in capsys.readouterr().err
    assert main(["measure", str(picked), *MODEL, "--runs", "1"]) == 0
    assert main(["resume", str(picked), *BOTH, "--quiet"]) == 0
    assert (picked / "report.html").is_file()


def test_it_is_resumed_to_the_end_it_would_have_had(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, stopped = loaders(), tmp_path / "stopped"
    torch.manual_seed(0)
    with pytest.raises(Stopped):
        compress(
            Net(), data.example_inputs(), data, target=Target(macs=0.7), settings=SETTINGS, out=stopped,
            progress=StopInWidth(),
        )  # fmt: skip
    assert main(["measure", str(stopped), *MODEL]) == 8
    assert f"is not finished, so that it has no model yet: amsc resume {stopped}" in capsys.readouterr().err
    assert main(["resume", str(stopped), "--model", "handed_over:wide", "--data", "handed_over:loaders"]) == 8
    assert "was of another network: a.weight is [8, 1, 3, 3] there and [12, 1, 3, 3] here" in capsys.readouterr().err
    assert main(["resume", str(stopped), *BOTH, "--quiet"]) == 0
    one, two = (json.loads((path / "record.json").read_text()) for path in (folder, stopped))
    assert one["path"] == two["path"]
    assert one["model"] == two["model"] == "Net"


def test_a_model_beside_what_is_no_folder_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", "digits_resnet", *MODEL]) == 2
    assert "digits_resnet is no folder" in capsys.readouterr().err
