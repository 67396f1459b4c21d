"""What is no run, or another one, is not gone on with; what a run from Python writes is a whole run."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from amsc import Settings, Target, compress, pick
from amsc.errors import RunFolderError, TargetError
from amsc.jobs.source import named_again
from amsc.models import open_model
from amsc.models.resnet_cifar import CifarResNet
from amsc.report import render
from amsc.settings import RunSettings, read_settings
from amsc.tasks import Classification, Regression, Task
from small_runs import DATA, run_small
from training.small import same_tensors, small_net

QUICK = Settings(path_epochs=0, finetune_epochs=0, depth_share=0.0, path_points=1)


class OneHot(Regression):
    """A task of the user's."""

    def per_example(self, output: Tensor, target: Tensor) -> Tensor:
        return super().per_example(output, torch.nn.functional.one_hot(target, 10).float())


class Stopped(Exception):
    """Raised instead of a kill."""


class StopAtOnce:
    def update(self, phase: str, step: int, steps: int, **values: float) -> None:
        if phase != "prepare":
            raise Stopped


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("folder") / "run"
    run_small(path, settings=QUICK, model_name="")
    return path


def _resumed(folder: Path, **options: Any) -> None:
    run_small(folder, resume=True, **{"settings": QUICK, "model_name": "", **options})


def test_another_network_data_or_task_does_not_go_on(folder: Path) -> None:
    before = (folder / "state" / "state.pt").read_bytes()
    wider = CifarResNet(2, widths=(12, 16, 32), num_classes=10, in_channels=1)
    with pytest.raises(RunFolderError, match=r"another network: conv1.weight is \[8, 1, 3, 3\] there and \[12, 1, 3"):
        _resumed(folder, model=wider)
    with pytest.raises(RunFolderError, match=r"another network: layer\d.* is (missing|only) in this one"):
        _resumed(folder, model=CifarResNet(1, widths=(8, 16, 32), num_classes=10, in_channels=1))
    with pytest.raises(RunFolderError, match="had data = 'digits', not 'others'"):
        _resumed(folder, data=dataclasses.replace(DATA, name="others"))
    with pytest.raises(RunFolderError, match="had task = 'accuracy'"):
        _resumed(folder, task=OneHot())
    assert (folder / "state" / "state.pt").read_bytes() == before
    _resumed(folder)


def test_a_folder_of_something_else_is_not_resumed(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match=r"no run to resume in .*: it holds notes.txt, but no state"):
        _resumed(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(RunFolderError, match="there is nothing in it"):
        _resumed(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_run_goes_on_from_the_weights_that_it_began_with(tmp_path: Path) -> None:
    settings = Settings(dense_epochs=0.5, path_epochs=0, path_points=1, finetune_epochs=0)  # stopped before a save
    trained = small_net()
    with pytest.raises(Stopped):
        run_small(tmp_path / "run", settings=settings, model=trained, progress=StopAtOnce())
    torch.manual_seed(99)
    other = small_net()
    for tensor in other.parameters():
        torch.nn.init.normal_(tensor)
    resumed = run_small(tmp_path / "run", settings=settings, model=other, resume=True)
    whole = run_small(settings=settings, model=trained)
    assert same_tensors(resumed.model.state_dict(), whole.model.state_dict())


def test_runs_from_python_write_their_report(folder: Path, tmp_path: Path) -> None:
    result = run_small(tmp_path / "run", settings=QUICK)
    assert (tmp_path / "run" / "report.html").read_text(encoding="utf-8") == render(result.record)
    picked = pick(folder, small_net(), DATA.example_inputs(1), DATA, target=Target(macs=0.8), out=tmp_path / "pick")
    assert (tmp_path / "pick" / "report.html").read_text(encoding="utf-8") == render(picked.record)


def test_settings_name_only_what_can_be_made_again() -> None:
    def named(name: str, model: nn.Module, task: Task | None = None) -> RunSettings:
        return named_again(name, model, DATA.example_inputs(1), DATA, task)

    noted = named("digits_resnet", small_net())
    assert (noted.model, noted.python["name"]) == (None, "digits_resnet"), "another network of that name"
    noted = named("digits_resnet", open_model("digits_resnet", num_classes=10, in_channels=1), Classification())
    assert (noted.model, noted.num_classes, noted.in_channels) == ("digits_resnet", 10, 1)
    assert (noted.task, "task" in noted.python) == ("classification", False)
    noted = named("my.nets:build", small_net(), OneHot())
    assert (noted.model, noted.task, noted.python["task"]) == ("my.nets:build", None, "OneHot")
    assert named("small", small_net(), Classification(label_smoothing=0.1)).python["task"] == "Classification"
    assert named("torchvision:nothing", small_net()).model is None


def test_the_settings_file_of_a_run_from_python_says_what_there_was(folder: Path, tmp_path: Path) -> None:
    noted = read_settings(folder / "settings.toml")
    assert (noted.model, noted.data, noted.target) == (None, None, "macs=0.6")
    assert noted.python == {"name": "CifarResNet", "model": "CifarResNet", "data": "digits"}
    source = RunSettings(model="my.nets:build", data="my.data:loaders")
    run_small(tmp_path / "run", settings=QUICK, source=source)
    noted = read_settings(tmp_path / "run" / "settings.toml")
    assert (noted.model, noted.data, noted.python) == (source.model, source.data, {})
    assert (noted.settings.path_epochs, noted.target) == (0, "macs=0.6")


def test_a_refused_run_from_python_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="lowest"):
        compress(small_net(), DATA.example_inputs(1), DATA, target=Target(macs=0.01), out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
