"""State on disk: one file, written whole or not at all, read without running code from it."""

import contextlib
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amsc.errors import RunFolderError

__all__ = ["load_state", "save_state", "write_atomically"]

FORMAT = 1


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state` (nested dictionaries, lists and tuples of tensors, numbers, strings and None) to `path`.

    If anything fails, what `path` held before is still there.

    Raises:
        RunFolderError: the file cannot be written, for example because the disk is full.
    """
    temporary = path.with_name(path.name + ".part")
    try:
        with open(temporary, "wb") as file:
            torch.save({"format": FORMAT, "state": _on_cpu(state)}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        _discard(temporary)
        raise RunFolderError(
            f"cannot write the state {path}: {error}; what was saved before is untouched, so make room and resume"
        ) from error


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


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        RunFolderError: it cannot be written; what was there before is untouched.
    """
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        _discard(temporary)
        raise RunFolderError(f"cannot write {path}: {error.strerror or error}") from error


def _discard(path: Path) -> None:
    with contextlib.suppress(OSError):  # the reason for failing is the first error, not this one
        path.unlink(missing_ok=True)


def _on_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        # a copy: a view would take its whole storage to the disk
        return value.detach().to("cpu", copy=True).contiguous()
    if isinstance(value, Mapping):
        return {key: _on_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_on_cpu(item) for item in value]
    return value
