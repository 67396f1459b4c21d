"""What goes wrong in the middle of a run: signals, and losses that are no number."""

import dataclasses
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from amsc.cli import main
from amsc.cli.stopping import TERMINATED
from amsc.errors import RunFolderError, TrainingError
from amsc.records import Record, from_json
from amsc.training.steps.step import TrainingStep
from small_runs import SETTINGS, run_small


class Strikes:
    """Does something in the middle of the given steps of all training, counted from 1."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
        self.taken, self.steps = 0, steps
        original = TrainingStep.__call__

        def take(step: TrainingStep, inputs: Any, target: Any) -> Tensor:
            self.taken += 1
            return self.strike(original(step, inputs, target), self.taken in self.steps)

        monkeypatch.setattr(TrainingStep, "__call__", take)

    def strike(self, loss: Tensor, is_due: bool) -> Tensor:
        return loss * math.nan if is_due else loss


class Signals(Strikes):
    def strike(self, loss: Tensor, is_due: bool) -> Tensor:
        if is_due:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss


PATH = dataclasses.replace(
    SETTINGS, precision="float32", dense_epochs=0.0, finetune_epochs=0.0, path_epochs=1.0, path_points=2
)


def test_a_piece_of_the_path_begins_again_at_half_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        Strikes(patched, 2)
        record = run_small(settings=PATH).record
    said = [text for text in record.warnings if "no finite number" in text]
    assert len(said) == 1
    assert "half the learning rate (0.025)" in said[0]
    slower = run_small(settings=dataclasses.replace(PATH, path_learning_rate=0.025)).record
    assert [point.train_loss for point in record.path] == [point.train_loss for point in slower.path]


def test_a_path_that_stays_so_ends_with_an_error_that_says_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Strikes(monkeypatch, *range(1, 100))
    with pytest.raises(TrainingError, match=r"taken back 3 times.*the path as it was after 0 pieces is kept"):
        run_small(tmp_path / "run", settings=PATH)
    assert (tmp_path / "run" / "state" / "state.pt").is_file()


COMMAND = ["compress", "digits_resnet", "--data", "digits", "--limit", "200", "--target", "macs=60%", "--quiet"]
COMMAND += ["--precision", "float32", "--effort", "instant", "--dense-epochs", "3", "--reconstruction", "0"]


def test_sigterm_ends_a_command_with_143_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        taken = Signals(patched, 3)
        assert main([*COMMAND, "--out", str(out)]) == TERMINATED == 143
        assert taken.taken == 3, "it ends with the step"
    assert f"to go on: amsc resume {out}" in capsys.readouterr().err
    with monkeypatch.context() as patched:
        rest = Signals(patched)
        assert main(["resume", str(out), "--quiet"]) == 0
    assert rest.taken == 3 * 2 - 3, "what was done is not done again"
    assert from_json(Record, (out / "record.json").read_text()).removed_channels


def test_a_disk_that_is_full_at_once_leaves_a_folder_that_can_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise RuntimeError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", full)
        with pytest.raises(RunFolderError, match="No space left"):
            run_small(tmp_path / "run", settings=PATH)
    assert run_small(tmp_path / "run", settings=PATH).record.warnings is not None
