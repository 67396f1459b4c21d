"""One writer at a time, whatever becomes of the one before."""

import json
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

import amsc.errors
from amsc.errors import AmscWarning, RunFolderError
from amsc.jobs.run_lock import claimed, sole_writer

SOURCE = str(Path(amsc.errors.__file__).parents[1])
HOLD = """
import sys, time
from pathlib import Path
from amsc.jobs.run_lock import sole_writer
with sole_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(100)
"""


def _holder(folder: Path) -> subprocess.Popen[str]:
    """A process that writes to `folder`, once it does."""
    environment = os.environ | {"PYTHONPATH": SOURCE}
    words = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_another_process_is_refused_and_named_and_a_dead_one_gives_way(tmp_path: Path) -> None:
    holder = _holder(tmp_path)
    try:
        with pytest.raises(RunFolderError, match=rf"being written by process {holder.pid} on .*name another folder"):
            sole_writer(tmp_path).__enter__()
        half = tmp_path / ".state.0123.part.pt"
        half.write_bytes(b"half a state")
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with pytest.warns(AmscWarning, match=f"process {holder.pid} on .* is gone: its lock is taken over"):
        sole_writer(tmp_path).__enter__()
    assert not half.exists()


def test_another_thread_is_refused(tmp_path: Path) -> None:
    said: list[str] = []

    def other() -> None:
        try:
            with sole_writer(tmp_path):
                said.append("came in")
        except RunFolderError as error:
            said.append(str(error))

    with sole_writer(tmp_path):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(said) == 1
    assert f"process {os.getpid()}" in said[0]


def test_the_lock_is_given_back_also_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), sole_writer(tmp_path):
        raise ZeroDivisionError
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with sole_writer(tmp_path):
            note = json.loads((tmp_path / ".writer.json").read_text())
    assert note["pid"] == os.getpid()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_folder_that_nothing_was_written_to_is_as_before(tmp_path: Path) -> None:
    with claimed(tmp_path / "new", is_needed=False) as path:
        assert path == tmp_path / "new"
        (path / "points").mkdir()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with claimed(tmp_path / "mine", is_needed=False):
        pass
    assert list((tmp_path / "mine").iterdir()) == []
    with claimed(tmp_path / "mine", is_needed=False) as path:
        (tmp_path / "mine" / "record.json").write_text("{}")
    assert (tmp_path / "mine" / "record.json").is_file()


def test_without_a_folder_there_is_none_or_a_temporary_one() -> None:
    with claimed(None, is_needed=False) as path:
        assert path is None
    with claimed(None, is_needed=True) as path:
        assert path is not None
        assert path.is_dir()
    assert not path.exists()
