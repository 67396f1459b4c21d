"""JSON files beside the words of a command."""

import errno
import io
import json
from pathlib import Path
from typing import Any

import pytest

from amsc.cli.console import Console
from amsc.cli.subject import write_json
from amsc.errors import RunFolderError

CONSOLE = Console(io.StringIO(), io.StringIO())


def _full_disk(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.replace", _full_disk)
    with pytest.raises(RunFolderError, match="No space left"):
        write_json(tmp_path / "new", "seen.json", {"macs": 1}, CONSOLE)
    assert not list((tmp_path / "new").iterdir())


def test_the_folder_is_made_and_what_is_there_stays(tmp_path: Path) -> None:
    write_json(tmp_path / "new", "seen.json", {"macs": 1}, CONSOLE)
    with pytest.raises(RunFolderError, match="exists already"):
        write_json(tmp_path / "new", "seen.json", {"macs": 2}, CONSOLE)
    assert json.loads((tmp_path / "new" / "seen.json").read_text()) == {"macs": 1}
    with pytest.raises(RunFolderError, match="cannot write"):
        write_json(tmp_path / "new" / "seen.json", "more.json", {}, CONSOLE)
