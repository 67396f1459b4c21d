"""Files that are written whole or not at all, also if the power fails; state that is read without running code."""

import contextlib
import errno
import glob
import os
import pickle
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from amsc.errors import RunFolderError
from amsc.parallel import by_first, told, told_of_failure, world

__all__ = ["append_line", "clear_parts", "load_state", "save_state", "sync", "write_atomically", "written_whole"]

PART = ".part"
FORMAT = 1


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state` (nested dictionaries, lists and tuples of tensors, numbers, strings and None) to `path`.

    If anything fails, what `path` held before is still there.

    Raises:
        RunFolderError: the file cannot be written, for example because the disk is full.
    """
    try:
        with written_whole(path) as temporary:
            torch.save({"format": FORMAT, "state": _on_cpu(state)}, temporary)
    except (RunFolderError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        words = str(error) if isinstance(error, RunFolderError) else f"cannot write {path}: {error}"
        raise RunFolderError(f"{words}; what was saved before is untouched, so make room and resume") from error


def load_state(path: Path) -> dict[str, Any]:
    """What `save_state` wrote, with all tensors on the CPU.

    Raises:
        RunFolderError: there is no such file, it is damaged, or it was written by another version.
    """
    if not path.is_file():
        raise RunFolderError(f"there is no saved state {path}; is this the folder of an amsc run?")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunFolderError(f"the saved state {path} is damaged ({reason}); start again in a new folder") from error
    if not isinstance(saved, dict) or saved.get("format") != FORMAT:
        raise RunFolderError(
            f"{path} is not a state of this version of amsc (format {FORMAT}); start again in a new folder"
        )
    state: dict[str, Any] = saved["state"]
    return state


def write_atomically(path: Path, content: bytes, *, make_folder: bool = False) -> None:
    """Write a file whole or not at all, in a folder that is there or, with `make_folder`, made.

    Raises:
        RunFolderError: it cannot be written; what was there before is untouched.
    """
    with written_whole(path, make_folder=make_folder) as temporary:
        temporary.write_bytes(content)


def append_line(path: Path, line: str) -> None:
    """Add a line to a file, in a folder that is made if it is not there.

    A crash may leave a part of the line at the end of the file; the next line begins on a line of its own all the same.

    Raises:
        RunFolderError: it cannot be written.
    """
    by_first(lambda: _append(path, line))


def _append(path: Path, line: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            if file.tell() and not _ends_a_line(file):
                file.write(b"\n")
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise RunFolderError(f"cannot write {path}: {error.strerror or error}") from error


def _ends_a_line(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


@contextlib.contextmanager
def written_whole(path: Path, *, make_folder: bool = False) -> Iterator[Path]:
    """A temporary file beside `path`, with its ending. What is there at the end takes the place of `path`; after an
    error it is gone.

    The file is on the disk before it gets its name, and the name before this returns: after a crash the folder holds
    the old file or the new one. Of several processes the first one writes, once all have come here; the others write
    to a place that nobody reads, and hear whether it went well.

    Raises:
        RunFolderError: it cannot be written; what was there before is untouched.
    """
    if world().is_alone:
        with _written_here(path, make_folder=make_folder) as temporary:
            yield temporary
        return
    told(lambda: None)  # all have come here
    failure: Exception | None = None
    try:
        if world().is_first:
            with _written_here(path, make_folder=make_folder) as temporary:
                yield temporary
        else:
            with tempfile.TemporaryDirectory() as folder:
                yield Path(folder) / path.name
    except Exception as error:  # whatever it is, the others wait to hear of it
        failure = error
    told_of_failure(lambda: _raised(failure))


def _raised(error: Exception | None) -> None:
    if error is not None:
        raise error


@contextlib.contextmanager
def _written_here(path: Path, *, make_folder: bool) -> Iterator[Path]:
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{PART}{path.suffix}")
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()  # fails now, and not after long work
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        raise RunFolderError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        _discard(path.parent.glob(f"{glob.escape(temporary.name)}*"))


def sync(path: Path) -> None:
    """Have what was written to a file, or the names in a folder, on the disk."""
    if path.is_dir() and os.name == "nt":  # pragma: no cover, folders cannot be opened there
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (path.is_dir() and error.errno == errno.EINVAL):  # some file systems cannot do it for folders
            raise
    finally:
        os.close(descriptor)


def clear_parts(folder: Path) -> None:
    """Remove what killed writers left behind in a folder that nobody else writes to."""
    _discard(folder.glob(f".*{PART}*"))


def _discard(files: Iterator[Path]) -> None:
    with contextlib.suppress(OSError):  # the reason for failing is the first error, not this one
        for file in files:
            file.unlink(missing_ok=True)


def _on_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        # a copy: a view would take its whole storage to the disk
        return value.detach().to("cpu", copy=True).contiguous()
    if isinstance(value, Mapping):
        return {key: _on_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_on_cpu(item) for item in value]
    return value
