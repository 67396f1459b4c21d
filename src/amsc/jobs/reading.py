"""The record of a run from its folder, and words for a folder that has none, or one that cannot be read."""

from pathlib import Path

from amsc.errors import AmscError, RunFolderError
from amsc.jobs.run_folder import PATH_FILE, SEARCH_FILE, refuse_links
from amsc.records import Record, from_json
from amsc.storage import read_text
from amsc.words.json_text import UnknownFieldsError, plain_json

__all__ = ["RECORD_FILE", "read_record", "so_far"]

RECORD_FILE = "record.json"


def read_record(folder: Path, version: str) -> Record:
    """The record of the finished run in `folder`; `version` is that of this amsc.

    Raises:
        RunFolderError: there is no folder, no run in it, the run is not finished, or its record is damaged or of a
            newer amsc.
    """
    file = folder / RECORD_FILE
    if not file.is_file():
        raise RunFolderError(_why_none(folder))
    refuse_links(folder)
    try:
        text = read_text(file)
    except (OSError, UnicodeDecodeError) as error:
        raise RunFolderError(f"cannot read {file}: {error}") from error
    try:
        return from_json(Record, text)
    except AmscError as error:
        raise RunFolderError(_why_unreadable(file, text, error, version)) from error


def so_far(folder: Path) -> str:
    """What the run in `folder` has come to, in words."""
    points, findings = _points_of(folder / PATH_FILE), len(_lines(folder / SEARCH_FILE))
    search = f", {findings} finding{'s' * (findings != 1)} of the search for the next" if findings else ""
    return f"so far: {points} point{'s' * (points != 1)} of the path{search}"


def _why_none(folder: Path) -> str:
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "is not there"
        return f"expected the folder of a run, but {folder} {what}"
    present = sorted(item.name for item in folder.iterdir() if not item.name.startswith("."))
    if "settings.toml" in present or PATH_FILE in present:
        points = _points_of(folder / PATH_FILE)
        return (
            f"the run in {folder} is not finished: it has {points} point{'s' * (points != 1)} of its path, and "
            f"no {RECORD_FILE} yet; go on with it: amsc resume {folder}"
        )
    found = f"it holds {', '.join(present[:3])}{' ...' if len(present) > 3 else ''}" if present else "it is empty"
    return f"{folder} is not the folder of a run: there is no {RECORD_FILE}, {found}"


def _points_of(file: Path) -> int:
    dense = '"phase":"dense"'  # where the path begins
    return sum(dense not in line.replace(" ", "") for line in _lines(file))


def _lines(file: Path) -> list[str]:
    try:
        return read_text(file, errors="replace").splitlines()
    except OSError:
        return []


def _why_unreadable(file: Path, text: str, error: AmscError, version: str) -> str:
    if not isinstance(error.__cause__, UnknownFieldsError):
        return (
            f"{file} is damaged, or was changed by hand: {error}; take it back from a copy, or render the report of a "
            "copy of the run"
        )
    plain = plain_json(text)
    versions = plain.get("versions", {}) if isinstance(plain, dict) else {}
    writer = versions.get("amsc", "unknown") if isinstance(versions, dict) else "unknown"
    return (
        f"{file} has more in it than this amsc knows ({error.__cause__}): it was written by amsc {writer}, and this is "
        f"{version}; use that one or a newer one, or take out what was added by hand"
    )
