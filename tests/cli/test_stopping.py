"""Ctrl-C, whenever it comes, ends a command with 130 and without a traceback; warnings are a line each."""

import os
import signal
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import pytest

import amsc.errors
from amsc.cli import main
from amsc.cli.stopping import INTERRUPTED
from amsc.errors import AmscWarning

SOURCE = str(Path(amsc.errors.__file__).parents[1])
SCRIPT = "import sys\nfrom amsc.cli import main\nsys.exit(main())"  # what pip installs as `amsc`


@pytest.mark.parametrize("command", [["-m", "amsc"], ["-c", SCRIPT]])
def test_while_torch_is_imported(command: list[str], tmp_path: Path) -> None:
    slow = "import time\nprint('importing', flush=True)\ntime.sleep(60)\n"
    (tmp_path / "torch.py").write_text(slow)  # found before torch
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{SOURCE}"}
    process = subprocess.Popen(
        [sys.executable, *command, "measure", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"importing\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == (b"", b"")
    assert process.returncode == INTERRUPTED


def test_before_there_was_a_run_nothing_is_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("amsc.jobs.compress.prepared", stopped)
    words = ["compress", "digits_resnet", "--data", "digits", "--target", "macs=50%", "--out", str(tmp_path / "run")]
    assert main(words) == INTERRUPTED
    said = capsys.readouterr().err
    assert "stopped before it began" in said
    assert "resume" not in said
    assert list(tmp_path.iterdir()) == []


def test_usual_handling_of_signals_is_left_as_it_was() -> None:
    before = signal.getsignal(signal.SIGINT)
    assert main(["--version"]) == 0
    assert signal.getsignal(signal.SIGINT) is before


def test_warnings_of_amsc_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def warn(*_: object, **__: object) -> None:
        warnings.warn("this may not be what you want", AmscWarning, stacklevel=1)
        warnings.warn("of somebody else", UserWarning, stacklevel=1)
        raise KeyboardInterrupt

    monkeypatch.setattr("amsc.cli.measure.measure", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["measure", "digits_resnet", "--quiet"]) == INTERRUPTED
    said = capsys.readouterr().err
    assert said.startswith("warning: this may not be what you want\n")
    assert "error: stopped" in said
