"""Other budgets from a path that has been walked: met, without walking again, and the path as it was."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from amsc import Result, Settings, Target, compress, pick
from amsc.cli.commands import main
from amsc.errors import ModelError, RunFolderError, TargetError
from amsc.jobs.reading import read_record
from amsc.measurement import count_macs
from amsc.models.resnet_cifar import CifarResNet
from amsc.surgery import load
from training.small import same_tensors, small_data, small_net

WALK = Settings(
    dense_epochs=2, path_epochs=3, finetune_epochs=0, path_points=6, path_learning_rate=0.05, depth_rule="share"
)
TUNE = Settings(finetune_epochs=1, finetune_learning_rate=0.05, distillation=0.0)
DATA = small_data()


class Stopped(Exception):
    """Raised instead of a kill."""


class StopAt:
    """Raises at the given call of `update`, and knows of which phases it heard."""

    def __init__(self, call: int = 0) -> None:
        self.call = call
        self.phases: list[str] = []

    def update(self, phase: str, step: int, steps: int, **values: float) -> None:
        if phase == "prepare":
            return
        self.phases.append(phase)
        if len(self.phases) == self.call:
            raise Stopped


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pick") / "path"
    compress(small_net(), DATA.example_inputs(1), DATA, target=Target(macs=0.5), settings=WALK, out=folder)
    return folder


def picked(walked: Path, macs: float, *, model: nn.Module | None = None, **options: Any) -> Result:
    options = {"settings": TUNE, **options}
    return pick(walked, model or small_net(), DATA.example_inputs(1), DATA, target=Target(macs=macs), **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("macs", [0.95, 0.8, 0.7, 0.6, 0.5])
def test_every_budget_on_the_way_is_met_without_walking(walked: Path, macs: float) -> None:
    before, heard = contents(walked), StopAt()
    result = picked(walked, macs, progress=heard)
    record = result.record
    assert set(heard.phases) == {"finetune", "measure"}
    assert 0.97 * macs <= record.after.macs / record.before.macs <= macs
    assert record.after.macs == count_macs(result.model, DATA.example_inputs(1))
    assert record.verification_error <= 1e-5
    assert record.path[-1].phase == "finetune"
    assert record.path[-1].epochs == pytest.approx(record.path[-2].epochs + 1)
    assert contents(walked) == before


def test_what_picks_need_may_be_deleted_and_nothing_else_needs_it(walked: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(walked, folder)
    shutil.rmtree(folder / "state")
    with pytest.raises(RunFolderError, match=r"no run to pick from or go on with: there is no .*state\.pt"):
        picked(folder, 0.7)
    shutil.rmtree(folder / "points")
    record = read_record(folder, "0.1.0")
    assert count_macs(load(folder / "model", small_net), DATA.example_inputs(1)) == record.after.macs
    assert main(["report", str(folder), "--quiet"]) == 0


def test_the_same_budget_picked_twice_is_the_same(walked: Path) -> None:
    one, two = picked(walked, 0.65), picked(walked, 0.65)
    assert one.plan == two.plan
    assert same_tensors(one.model.state_dict(), two.model.state_dict())


def test_the_end_of_the_path_is_taken_as_it_is(walked: Path) -> None:
    record = json.loads((walked / "record.json").read_text())
    share = record["after"]["macs"] / record["before"]["macs"]
    result = picked(walked, share + 1e-4, settings=Settings(finetune_epochs=0))
    assert result.record.removed_channels == {k: tuple(v) for k, v in record["removed_channels"].items()}
    assert result.record.score_after == record["score_after"]


def test_of_points_with_one_structure_the_last_keeps_its_weights(walked: Path) -> None:
    points = [json.loads(line) for line in (walked / "path.jsonl").read_text().splitlines()]
    points = [point for point in points if point["phase"] != "finetune"]
    shapes = [json.dumps([point["removed_blocks"], point["removed_channels"]]) for point in points]
    assert len(set(shapes)) < len(shapes), "two points have one structure"
    last = {shape: number for number, shape in enumerate(shapes)}
    last[shapes[0]] = 0  # the dense network keeps its own
    assert [number for number, point in enumerate(points) if point["weights"]] == sorted(last.values())


def test_a_pick_that_was_stopped_is_resumed(walked: Path, tmp_path: Path) -> None:
    settings = Settings(finetune_epochs=3, finetune_learning_rate=0.05)
    whole = picked(walked, 0.7, settings=settings)
    with pytest.raises(Stopped):
        picked(walked, 0.7, settings=settings, out=tmp_path / "run", progress=StopAt(2))
    options: dict[str, Any] = {"target": Target(macs=0.7), "settings": settings, "out": tmp_path / "run"}
    resumed = compress(small_net(), DATA.example_inputs(1), DATA, resume=True, **options)
    assert same_tensors(whole.model.state_dict(), resumed.model.state_dict())
    saved = load(tmp_path / "run" / "model", small_net)
    assert torch.equal(saved.eval()(DATA.example_inputs(2)), resumed.model.eval()(DATA.example_inputs(2)))


def test_what_cannot_be_picked_is_refused_and_nothing_is_lost(walked: Path, tmp_path: Path) -> None:
    before = contents(walked)
    with pytest.raises(TargetError, match=r"goes down to \d+\.\d% of what .*the target is 40\.0%"):
        picked(walked, 0.4, out=tmp_path / "new")
    with pytest.raises(RunFolderError, match="holds no run"):
        picked(tmp_path, 0.7)
    with pytest.raises(ModelError, match="not of this"):
        picked(walked, 0.7, model=CifarResNet(2, widths=(8, 16, 24), num_classes=10, in_channels=1))
    with pytest.raises(RunFolderError, match="already holds"):
        picked(walked, 0.7, out=walked)
    (tmp_path / "broken" / "state").mkdir(parents=True)
    (tmp_path / "broken" / "state" / "state.pt").write_bytes(b"no")
    with pytest.raises(RunFolderError):
        picked(tmp_path / "broken", 0.7)
    assert contents(walked) == before
    assert not (tmp_path / "new").exists()


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "path")
    walk = ["--dense-epochs", "1", "--path-epochs", "2", "--path-points", "4", "--limit", "300", "--batch-size", "32"]
    assert (
        main(["path", "digits_resnet", "--data", "digits", "--target", "macs=50%", "--out", path, "--json", *walk]) == 0
    )
    assert json.loads(capsys.readouterr().out)["record"]["settings"]["finetune_epochs"] == 0
    targets = ["--target", "macs=80%", "--target", "macs=60%"]
    recovery = ["--finetune-epochs", "1", "--distillation", "0.5", "--ema", "0.9"]
    assert main(["pick", path, *targets, *recovery, "--json"]) == 0
    picks = json.loads(capsys.readouterr().out)["picks"]
    shares = [pick["record"]["after"]["macs"] / pick["record"]["before"]["macs"] for pick in picks]
    assert 0.78 <= shares[0] <= 0.8
    assert 0.58 <= shares[1] <= 0.6
    assert (tmp_path / "path" / "picks" / "macs-0.8" / "report.html").is_file()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["pick", "nowhere", "--target", "macs=50%"], 8, "not a run folder"),
        (["pick", "{run}"], 2, "--target T is missing"),
        (["pick", "{run}", "--target", "macs=50%", "--target", "macs=60%", "--out", "x"], 2, "several targets"),
        (["pick", "{run}", "--target", "50"], 5, "expected a target"),
        (["path", "digits_resnet", "--data", "digits"], 2, "--target T is missing"),
    ],
)
def test_wrong_words_are_answered(
    words: list[str], code: int, said: str, walked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.format(run=walked) for word in words]) == code
    assert said in capsys.readouterr().err
