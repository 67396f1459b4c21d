"""One writer at a time in a run folder: a lock that ends with its process, and words about who holds it."""

import contextlib
import datetime
import json
import os
import socket
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from amsc.errors import AmscWarning, RunFolderError
from amsc.parallel import by_first
from amsc.storage import clear_parts, read_text
from amsc.words.json_text import plain_json

__all__ = ["HIDDEN", "claimed", "sole_writer"]

LOCK_FILE = ".lock"
WRITER_FILE = ".writer.json"
HIDDEN = frozenset({LOCK_FILE, WRITER_FILE})
"""What is in a run folder while somebody writes to it; the empty lock stays."""


@contextlib.contextmanager
def claimed(out: Path | None, *, is_needed: bool) -> Iterator[Path | None]:
    """The folder of a run, for this process alone until the end; if nothing was written to it then, it is as before.

    Without `out` it is None, or a temporary folder if one `is_needed`.

    Of several processes of one job the first one claims it for all.

    Raises:
        RunFolderError: another process is writing to it, or it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        yield by_first(lambda: stack.enter_context(_claimed_here(out, is_needed=is_needed)))


@contextlib.contextmanager
def _claimed_here(out: Path | None, *, is_needed: bool) -> Iterator[Path | None]:
    if out is None:
        with tempfile.TemporaryDirectory() if is_needed else contextlib.nullcontext() as scratch:
            yield None if scratch is None else Path(scratch)
        return
    is_new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(out, error) from error
    try:
        with sole_writer(out):
            yield out
    finally:
        _discard_unused(out, is_new=is_new)


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Nobody else writes to `folder` until the end. The system gives the lock of a dead process back: it is taken over,
    with a warning.

    Raises:
        RunFolderError: another process is writing to it, or it cannot be written.
    """
    lock, note = FileLock(folder / LOCK_FILE), folder / WRITER_FILE
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunFolderError(
            f"{folder} is being written by {_writer(note)}; wait until that is done, stop it, or name another folder"
        ) from error
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        _take_over(folder, note)
        yield
    finally:
        with contextlib.suppress(OSError):  # the note is for people, the lock is what counts
            note.unlink(missing_ok=True)
        lock.release()


def _take_over(folder: Path, note: Path) -> None:
    """Sign as the writer; a note that is there is of one that did not come to its end."""
    try:
        if note.exists():
            text = f"{_writer(note)}, which wrote to {folder}, is gone: its lock is taken over"
            warnings.warn(text, AmscWarning, stacklevel=14)  # fourteen calls below that of compress or pick
            for place in (folder, *(path for path in folder.iterdir() if path.is_dir())):
                clear_parts(place)
        now = datetime.datetime.now().isoformat(" ", "seconds")
        said = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
        note.unlink(missing_ok=True)  # it may be a link that leads elsewhere
        note.write_bytes(json.dumps(said).encode())
    except OSError as error:
        raise _unwritable(folder, error) from error


def _writer(note: Path) -> str:
    """Who wrote the note, in words."""
    try:
        writer = plain_json(read_text(note))
        return f"process {writer['pid']} on {writer['host']} (since {writer['since']})"
    except (OSError, ValueError, KeyError, TypeError):  # not written yet, or by something else
        return "another process"


def _unwritable(folder: Path, error: OSError) -> RunFolderError:
    return RunFolderError(f"the run folder {folder} cannot be written: {error.strerror or error}; name another one")


def _discard_unused(folder: Path, *, is_new: bool) -> None:
    """Remove the lock and empty folders where no run came to be, and the folder itself if it was not there before."""
    files = [path for path in folder.rglob("*") if not path.is_dir()]
    if any(path.name not in HIDDEN for path in files):
        return
    with contextlib.suppress(OSError):  # somebody else may have come by now
        for path in (*files, *sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True)):
            path.unlink() if path in files else path.rmdir()
        if is_new:
            folder.rmdir()
