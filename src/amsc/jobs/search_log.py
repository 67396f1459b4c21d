"""What a search has found out, in a file of the run folder to which each finding is added at once."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amsc.errors import RunFolderError
from amsc.parallel import by_first
from amsc.storage import append_line, read_text
from amsc.words.json_text import plain_json

__all__ = ["SearchLog"]


class SearchLog:
    """The memory of a search (see `Memo`): a line of JSON in `path` for each finding; nothing where `path` is None.

    A line that was cut off when its writer was killed, and whatever is no finding, counts as not written."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._found = _read(path) if path is not None and path.exists() else {}

    def get(self, key: str) -> Mapping[str, Any] | None:
        """What was kept under `key`, if anything was."""
        return self._found.get(key)

    def keep(self, key: str, found: Mapping[str, Any]) -> None:
        """Have it remembered.

        Raises:
            RunFolderError: it cannot be written.
        """
        if self._path is not None:
            self._found[key] = found
            append_line(self._path, json.dumps({"key": key, "found": found}))

    def forget(self) -> None:
        """The search has ended: nothing of it is needed any more."""
        path = self._path
        if path is not None:
            self._found.clear()
            by_first(lambda: path.unlink(missing_ok=True))


def _read(path: Path) -> dict[str, Mapping[str, Any]]:
    try:
        lines = read_text(path, errors="replace").splitlines()
    except OSError as error:
        raise RunFolderError(f"cannot read {path}: {error}") from error
    found: dict[str, Mapping[str, Any]] = {}
    for line in lines:
        try:
            entry = plain_json(line)
            found[str(entry["key"])] = dict(entry["found"])
        except (ValueError, TypeError, KeyError):
            continue
    return found
