"""Who hears how far a job is: True, False, None and a listener of one's own."""

import io
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from amsc.errors import SettingsError
from amsc.jobs.listening import listener_of
from amsc.progress import NoProgress
from amsc.settings import Settings
from small_runs import run_small


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def told(monkeypatch: pytest.MonkeyPatch, progress: Any, stream: io.StringIO) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with listener_of(progress) as listener:
        listener.update("finetune", 1, 4, loss=0.5)
    return stream.getvalue()


def test_true_shows_and_false_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(monkeypatch, True, io.StringIO()) == "finetune 1/4: loss 0.5000\n"
    assert "loss 0.5000" in told(monkeypatch, True, _Terminal())
    assert told(monkeypatch, False, _Terminal()) == ""


def test_where_nothing_is_said_a_terminal_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(monkeypatch, None, io.StringIO()) == ""
    assert "loss 0.5000" in told(monkeypatch, None, _Terminal())


def test_elsewhere_it_goes_to_the_log_of_whom_it_concerns(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert told(monkeypatch, None, io.StringIO()) == ""
    assert caplog.messages == [], "nobody asked for INFO"
    with caplog.at_level(logging.INFO, "amsc"):
        assert told(monkeypatch, None, io.StringIO()) == ""
        assert told(monkeypatch, False, io.StringIO()) == ""
        assert "loss 0.5000" in told(monkeypatch, True, io.StringIO())
    first, line = caplog.messages
    assert "progress=True shows it on standard error" in first
    assert line == "finetune 1/4: loss 0.5000"


def test_a_percent_sign_is_no_format(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with caplog.at_level(logging.INFO, "amsc"), listener_of(None) as listener:
        listener.update("finetune", 2, 4, cost=0.5)
    assert caplog.messages[-1] == "finetune 2/4: the network of 50.0% of the cost"


def test_a_listener_of_ones_own_is_handed_on() -> None:
    own = NoProgress()
    with listener_of(own) as listener:
        assert listener is own


def untrained(out: Path | None = None, **options: Any) -> None:
    """A run whose networks are looked for at equal cost, and fine-tuned."""
    run_small(out, settings=Settings.of("quick", finetune_epochs=1, path_points=1, reconstruction=32), **options)


class Heard:
    def __init__(self, stop_at: str = "") -> None:
        self.phases: list[str] = []
        self._stop_at = stop_at

    def update(self, phase: str, step: int, steps: int, **values: float) -> None:
        self.phases += [phase] if phase not in self.phases else []
        if phase == self._stop_at:
            raise KeyboardInterrupt


def test_every_stage_of_a_run_is_heard() -> None:
    heard = Heard()
    untrained(progress=heard)
    assert heard.phases == ["prepare", "search", "finetune", "measure"]


def test_a_run_that_is_stopped_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt, match=r"the same call with resume=True, or amsc resume .*run"):
        untrained(tmp_path / "run", progress=Heard("finetune"))
    untrained(tmp_path / "run", resume=True)
    with pytest.raises(KeyboardInterrupt) as stopped:
        untrained(progress=Heard("finetune"))
    assert not str(stopped.value), "without a folder there is nothing to go on with"


@pytest.mark.parametrize("wrong", ["yes", 3, Heard])
def test_what_cannot_listen_is_refused(wrong: Any) -> None:
    with pytest.raises(SettingsError, match="progress: expected True, False or an object"):
        untrained(progress=wrong)
