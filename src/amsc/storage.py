"""Files that are written whole or not at all, also if the power fails; state that is read without running code."""

import contextlib
import errno
import glob
import os
import pickle
import shutil
import stat
import tempfile
import uuid
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from amsc.errors import AmscWarning, RunFolderError
from amsc.parallel import by_first, told, told_of_failure, world
from amsc.tensor_files import digest_of

__all__ = [
    "append_line",
    "clear_parts",
    "has_state",
    "load_state",
    "read_text",
    "save_state",
    "sync",
    "write_atomically",
    "written_whole",
]

PART = ".part"
FORMAT = 1
SEAL = b"\namsc blake2b "
"""What is between a state and its checksum, at the end of the file."""
SEAL_SIZE = len(SEAL) + 64


def save_state(path: Path, state: Mapping[str, Any], *, keep: bool = True) -> None:
    """Write `state` (nested dictionaries, lists and tuples of tensors, numbers, strings and None) to `path`.

    If anything fails, what `path` held before is still there. With `keep` it stays beside the new one (`load_state`).

    Raises:
        RunFolderError: the file cannot be written, for example because the disk is full.
    """
    try:
        with written_whole(path) as temporary:
            torch.save({"format": FORMAT, "state": _on_cpu(state)}, temporary)
            _seal(temporary)
            if keep and world().is_first:
                _keep(path)
    except (RunFolderError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        words = str(error) if isinstance(error, RunFolderError) else f"cannot write {path}: {error}"
        raise RunFolderError(f"{words}; what was saved before is untouched, so make room and resume") from error


def load_state(path: Path) -> dict[str, Any]:
    """What `save_state` wrote last, with all tensors on the CPU. Where that is damaged it is the state before, which
    takes its place, and an `AmscWarning` says so.

    Raises:
        RunFolderError: there is no such file, both are damaged, or it was written by another version.
    """
    if not has_state(path):
        raise RunFolderError(f"there is no saved state {path}; is this the folder of an amsc run?")
    try:
        return _read_state(path)
    except _DamagedError as error:
        before = _before(path)
        if not before.is_file():
            raise RunFolderError(f"{error}; start again in a new folder") from error
        try:
            state = _read_state(before)
        except _DamagedError as other:
            raise RunFolderError(f"{error}, and so is {before.name}; start again in a new folder") from other
        with contextlib.suppress(OSError):  # a folder that may only be read
            by_first(lambda: _put_back(before, path))
        warnings.warn(f"{error}: it is gone on with from the state saved before it", AmscWarning, stacklevel=2)
        return state


def _put_back(before: Path, path: Path) -> None:
    """Let the state before take the place of the damaged one, which is kept for who wants to look at it."""
    if path.exists():
        os.replace(path, path.with_name(f"{path.stem}.damaged{path.suffix}"))
    os.replace(before, path)


def has_state(path: Path) -> bool:
    """Whether `load_state` finds something to read."""
    return path.is_file() or _before(path).is_file()


class _DamagedError(RunFolderError):
    """A saved state is not what was written."""


def _before(path: Path) -> Path:
    return path.with_name(f"{path.stem}.before{path.suffix}")


def _keep(path: Path) -> None:
    """Give what is at `path` a second name, under which it stays."""
    if not path.is_file():
        return
    name = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{PART}{path.suffix}")
    try:
        try:
            os.link(path, name)
        except OSError:  # there are file systems without links
            shutil.copyfile(path, name)
        os.replace(name, _before(path))
    finally:
        name.unlink(missing_ok=True)


def _seal(path: Path) -> None:
    """Add the checksum of a file to its end, where readers of zip files pass it over."""
    with path.open("r+b") as file:
        digest = digest_of(file)
        file.write(SEAL + digest.encode())


def _check_seal(path: Path) -> None:
    """Refuse what is not what was written, and what is no zip file of plain entries: `torch.save` does not compress,
    so that a file cannot be larger in memory than it is on the disk. States of before there were seals have none."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - SEAL_SIZE))
        seal = file.read()
        if seal.startswith(SEAL):
            file.seek(0)
            if digest_of(file, size - SEAL_SIZE) != seal.removeprefix(SEAL).decode(errors="replace"):
                raise ValueError("its checksum is not that of what was written")
        file.seek(0)
        with zipfile.ZipFile(file) as content:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in content.infolist()):
                raise ValueError("it is compressed, as no state of amsc is")


def _read_state(path: Path) -> dict[str, Any]:
    try:
        _check_seal(path)
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise _DamagedError(f"the saved state {path} is gone") from error
    except (OSError, MemoryError) as error:  # the file may be as it was written
        raise RunFolderError(f"cannot read the saved state {path}: {error or type(error).__name__}") from error
    except DAMAGED as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _DamagedError(f"the saved state {path} is damaged ({reason})") from error
    if not isinstance(saved, dict) or saved.get("format") != FORMAT or not isinstance(saved.get("state"), dict):
        raise RunFolderError(
            f"{path} is not a state of this version of amsc (format {FORMAT}); start again in a new folder"
        )
    state: dict[str, Any] = saved["state"]
    return state


DAMAGED = (
    *(RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError),
    *(pickle.UnpicklingError, zipfile.BadZipFile, RecursionError, NotImplementedError, OverflowError, AssertionError),
)
"""What reading a file that somebody has changed may end with."""


def write_atomically(path: Path, content: bytes, *, make_folder: bool = False) -> None:
    """Write a file whole or not at all, in a folder that is there or, with `make_folder`, made.

    Raises:
        RunFolderError: it cannot be written; what was there before is untouched.
    """
    with written_whole(path, make_folder=make_folder) as temporary:
        temporary.write_bytes(content)


MOST_TEXT = 64 << 20
"""Bytes of a text file; records of large networks have some hundred thousand."""


def read_text(path: Path, *, most: int = MOST_TEXT, errors: str = "strict") -> str:
    """What a text file (UTF-8) holds; `errors` as in `bytes.decode`.

    Raises:
        OSError: it cannot be read, is no file, or has more than `most` bytes.
        UnicodeDecodeError: it is no text.
    """
    facts = path.stat()  # to open a pipe would be to wait for who writes to it
    if not stat.S_ISREG(facts.st_mode):
        raise OSError(errno.EINVAL, "it is no file", str(path))
    if facts.st_size > most:
        raise OSError(errno.EFBIG, f"it has {facts.st_size:,} bytes, and may have {most:,}", str(path))
    with path.open("rb") as file:
        return file.read(most).decode("utf-8", errors)


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
        if path.is_symlink():  # it may lead anywhere
            raise OSError(errno.ELOOP, "it is a symbolic link")
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
