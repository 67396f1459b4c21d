"""The target free, end to end: as small as it goes for nothing."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from amsc import Result, Settings, Target, pick, plan_cut, trace
from amsc.borrowing import copied
from amsc.cli import main
from amsc.errors import SettingsError, TargetError
from amsc.records import Record, from_json, to_json
from amsc.report import render
from amsc.surgery import apply_plan
from amsc.tasks import Classification, Imitation
from amsc.training import evaluate
from amsc.words.free import verdict, words_on_nothing
from amsc.words.record import path_remarks
from jobs.test_compress import StopAt, Stopped, _essence
from small_runs import run_small
from training.small import ListData, same_tensors, small_data, small_net, trained_net

DATA = small_data()
FREE = Target.free()
SETTINGS = Settings(path_epochs=1, depth_rule="share", finetune_epochs=0.5, reconstruction=64)


@pytest.fixture(scope="module")
def dense() -> nn.Module:
    return trained_net(DATA)


def run_free(dense: nn.Module, out: Path | None = None, **options: Any) -> Result:
    options = {"target": FREE, "settings": SETTINGS, "data": DATA, **options}
    return run_small(out, model=copied(dense), **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("free") / "run"


@pytest.fixture(scope="module")
def result(dense: nn.Module, folder: Path) -> Result:
    return run_free(dense, folder)


def test_the_smallest_network_within_a_standard_error_is_kept(dense: nn.Module, result: Result) -> None:
    record = result.record
    assert record.target == "free"
    assert SETTINGS.path_epochs > 0
    assert (record.settings["path_epochs"], record.settings["depth_rule"]) == (0.0, "equal-cost"), "as it was done"
    assert {point.epochs for point in record.path[:-1]} == {0.0}
    assert record.removed_blocks or record.removed_channels
    rows = record.judged_shares
    assert [row.macs for row in rows] == sorted((row.macs for row in rows), reverse=True)
    assert rows[0].macs == record.before.macs
    assert len(rows) > 2
    kept = min((row for row in rows if row.is_as_good), key=lambda row: row.macs)
    assert record.after.macs == kept.macs
    points = {point.macs: point for point in record.path if point.phase in ("dense", "depth")}
    assert {row.macs: row.score for row in rows} == {macs: point.score for macs, point in points.items()}
    assert points[kept.macs].removed_channels == record.removed_channels
    assert points[kept.macs].removed_blocks == record.removed_blocks
    assert all(point.candidates and point.repaired for point in record.path if point.phase == "depth")
    assert [point.phase for point in record.path][-1] == "finetune"


def test_the_rows_hold_for_the_networks_that_were_saved(dense: nn.Module, folder: Path, result: Result) -> None:
    """Each network made again from its file, and compared with the best example by example."""
    scores = {}
    for point in (point for point in result.record.path if point.phase != "finetune"):
        plan = plan_cut(
            trace(dense, DATA.example_inputs(1)), channels=point.removed_channels, blocks=point.removed_blocks
        )
        small = copied(dense) if plan.changes_nothing else apply_plan(dense, plan)
        if point.weights is not None:
            small.load_state_dict(load_file(folder / "points" / point.weights))
        scores[point.macs] = evaluate(small, DATA, "validation", Classification()).per_example.double()
    best = max(scores.values(), key=lambda one: float(one.mean()))
    for row in result.record.judged_shares:
        difference = best - scores[row.macs]
        error = float(difference.std()) / math.sqrt(len(difference))
        assert (row.behind, row.standard_error) == pytest.approx((float(difference.mean()), error), abs=1e-9)
        assert row.is_as_good == (float(difference.mean()) <= error * (1 + 1e-9))


def test_the_verdict_is_told_everywhere(result: Result) -> None:
    record = result.record
    sentence, *_ = path_remarks(record)
    assert sentence == verdict(record.judged_shares, "accuracy")
    assert f"as small as it goes for nothing is {record.after.macs / record.before.macs:.1%} of the MACs" in sentence
    kept = next(row for row in record.judged_shares if row.macs == record.after.macs)
    assert ("one paired standard error is" in sentence) == (kept.behind > 0)
    assert sentence in str(result)
    page = render(record)
    assert sentence[1:] in page
    assert page.count('<td class="indices">yes</td>') == sum(row.is_as_good for row in record.judged_shares)
    assert from_json(Record, to_json(record)) == record


@pytest.mark.parametrize("call", [1, 3])
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(
    dense: nn.Module, result: Result, tmp_path: Path, call: int
) -> None:
    with pytest.raises(Stopped):
        run_free(dense, tmp_path / "run", progress=StopAt(call))
    with pytest.raises(Stopped):
        run_free(dense, tmp_path / "run", resume=True, progress=StopAt(1))
    resumed = run_free(dense, tmp_path / "run", resume=True)
    assert _essence(resumed.record) == _essence(result.record)
    assert same_tensors(resumed.model.state_dict(), result.model.state_dict())


def test_the_ladder_is_a_path_to_pick_from(dense: nn.Module, folder: Path, result: Result) -> None:
    lowest = min(row.share for row in result.record.judged_shares)
    target = Target(macs=(1 + lowest) / 2)
    picked = pick(folder, copied(dense), DATA.example_inputs(1), DATA, target=target)
    assert lowest < picked.record.after.macs / picked.record.before.macs <= target.limits["macs"].number
    assert not picked.record.judged_shares
    with pytest.raises(TargetError, match="free builds networks of its own"):
        pick(folder, copied(dense), DATA.example_inputs(1), DATA, target=FREE)


def test_width_alone_keeps_every_block(dense: nn.Module) -> None:
    settings = dataclasses.replace(SETTINGS, depth_share=0.0, finetune_epochs=0.0)
    record = run_free(dense, settings=settings).record
    assert not record.removed_blocks
    assert record.removed_channels
    assert path_remarks(record)[0].startswith("as small as")


def test_where_nothing_can_go_for_nothing_that_is_an_error(tmp_path: Path) -> None:
    """Each hidden unit stands for a class of its own: whatever goes makes mistakes."""
    inputs = torch.eye(8).repeat(4, 1)
    labels = torch.arange(8).repeat(4)

    class Barely(nn.Module):
        """Gives its hidden units back."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
            for layer in (self.first, self.second):
                nn.init.eye_(layer.weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x).relu())

    data = ListData(((inputs, labels),) * 4, num_classes=8)
    options = {"target": FREE, "settings": SETTINGS, "data": data}
    words = "nothing can go for nothing: of .* smaller networks none .* on 128 validation examples; with 75.0% of"
    with pytest.raises(TargetError, match=words):
        run_small(tmp_path / "run", model=Barely(), **options)
    with pytest.raises(TargetError, match="points behind"):  # and the search is not made again
        run_small(tmp_path / "run", model=Barely(), resume=True, progress=StopAt(1), **options)


def test_without_a_smaller_network_there_is_no_number_to_tell() -> None:
    assert "no smaller network could be made" in words_on_nothing((), "accuracy")


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"task": Imitation()}, TargetError, "the task imitation the best is the dense network itself.*drop=0.02"),
        (
            {"settings": Settings(plain=True)},
            SettingsError,
            "plain: convolutions are drawn to the identity.*leave plain out",
        ),
        (
            {"data": ListData(((torch.zeros(1, 1, 8, 8), torch.zeros(1, dtype=torch.long)),), num_classes=10)},
            TargetError,
            "example by example, and the validation split of list has 1",
        ),
    ],
)
def test_what_means_nothing_is_refused(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        run_small(**{"target": FREE, "settings": Settings(), "model": small_net(), **options})


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["digits_resnet", "--data", "digits", "--limit", "160", "--target", "free", "--dense-epochs", "2"]
    run = tmp_path / "run"
    assert main(["compress", *words, "--reconstruction", "48", "--finetune-epochs", "0", "--out", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "as small as it goes for nothing" in shown
    assert "behind the best" in shown
    assert 'target = "free"' in (run / "settings.toml").read_text()
    assert from_json(Record, (run / "record.json").read_text()).judged_shares
    assert main(["path", *words, "--out", str(tmp_path / "path"), "--quiet"]) == 2
    assert "what may be lost is for amsc compress" in capsys.readouterr().err
