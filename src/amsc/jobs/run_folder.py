"""The folder of a run: its path, points and state on disk, each file written whole or not at all."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from amsc.errors import AmscError, RunFolderError
from amsc.jobs.fingerprint import rounded_digest
from amsc.jobs.run_identity import refuse_another_run
from amsc.jobs.run_lock import HIDDEN
from amsc.jobs.run_state import RunState, run_state_from_plain, run_state_to_plain
from amsc.jobs.search_log import SearchLog
from amsc.parallel import check_agreement, world
from amsc.records import PathPoint, Record, to_json
from amsc.report import render
from amsc.settings import RunSettings, read_settings, write_settings
from amsc.storage import has_state, load_state, save_state, write_atomically, written_whole
from amsc.surgery import CutPlan
from amsc.tensor_files import load_tensors, save_tensors

__all__ = ["RunFolder", "check_usable", "is_as_new", "refuse_links"]

SETTINGS_FILE = "settings.toml"
STATE_FILE = Path("state", "state.pt")
SEARCH_FILE = Path("state", "search.jsonl")
PATH_FILE = "path.jsonl"
FIRST = {SETTINGS_FILE, PATH_FILE, STATE_FILE.parent.name}
"""What a run writes until it has a state: without one nothing of it counts."""


def check_usable(path: Path | None, *, resume: bool) -> None:
    """Refuse a folder that cannot be used; one that `is_as_new` counts as new.

    Raises:
        RunFolderError: it holds something and `resume` is not set, or there is nothing to resume.
    """
    if path is None:
        if resume:
            raise RunFolderError("there is no run to resume: say in which folder it is")
        return
    if path.exists() and not path.is_dir():
        raise RunFolderError(f"{path} is a file; name a folder for the run")
    present = sorted(item.name for item in path.iterdir() if item.name not in HIDDEN) if path.is_dir() else []
    words = f"{', '.join(present[:3])}{' ...' if len(present) > 3 else ''}"
    if resume:
        refuse_links(path)
    if resume and not has_state(path / STATE_FILE):
        found = f"it holds {words}, but no {STATE_FILE}" if present else "there is nothing in it"
        raise RunFolderError(f"there is no run to resume in {path}: {found}; start one without resume, in a new folder")
    if not resume and not is_as_new(path):
        is_run = has_state(path / STATE_FILE)
        resume_it = f", or go on with the run in it: resume=True in Python, or amsc resume {path}" if is_run else ""
        raise RunFolderError(f"{path} already holds {words}; name another folder{resume_it}")


def refuse_links(folder: Path) -> None:
    """Refuse a run folder from which a symbolic link leads out: a stranger's could have another file read or written.

    Raises:
        RunFolderError: there is one.
    """
    inside = folder.resolve()
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(inside):
            raise RunFolderError(f"{path} is a link that leads out of the run folder; put the file itself in its place")


def is_as_new(path: Path) -> bool:
    """Whether there is nothing in the folder, or no more than a run leaves that was stopped before it had a state."""
    present = {item.name for item in path.iterdir()} - HIDDEN if path.is_dir() else set()
    return present <= FIRST and not has_state(path / STATE_FILE)


@dataclass(frozen=True)
class RunFolder:
    """A run's folder, or nowhere: with `path` None nothing is read or written. `identity` is what must be the same for
    a run to be resumed."""

    path: Path | None
    identity: Mapping[str, Any]

    def begin(self, state: RunState, run: RunSettings) -> None:
        """Write settings.toml, unless it is there, and the first state. If that fails, nothing of a new run is left.

        Raises:
            RunFolderError: it cannot be written.
        """
        if self.path is None:
            return
        present = {item.name for item in self.path.iterdir()}
        try:
            if SETTINGS_FILE not in present:
                write_settings(self.path / SETTINGS_FILE, run)
            self.save(state)
        except BaseException:
            if world().is_first and not has_state(self.path / STATE_FILE):
                for name in {SETTINGS_FILE, PATH_FILE} - present:
                    (self.path / name).unlink(missing_ok=True)
            raise

    @cached_property
    def search_log(self) -> SearchLog:
        """What the search of the run has found out so far."""
        return SearchLog(None if self.path is None else self.path / SEARCH_FILE)

    def read(self) -> RunState:
        """The saved state.

        Raises:
            RunFolderError: there is none, it is damaged, or of another run.
        """
        path = self._inside()
        refuse_links(path)
        if not has_state(path / STATE_FILE):
            raise RunFolderError(
                f"{path} holds no run to pick from or go on with: there is no {path / STATE_FILE}, which every run of "
                "compress writes"
            )
        saved = load_state(path / STATE_FILE)
        was = saved.pop("run", {})
        if not isinstance(was, Mapping):
            raise RunFolderError(f"the saved state {path / STATE_FILE} does not say of which run it is; start again")
        refuse_another_run(path, was, self.identity)
        try:
            return run_state_from_plain(saved)
        except (AmscError, TypeError, LookupError, ValueError, AttributeError, RuntimeError) as error:
            raise RunFolderError(f"the saved state {path / STATE_FILE} does not fit ({error}); start again") from error

    def read_weights(self, point: PathPoint) -> dict[str, Tensor]:
        """The weights that `save_point` wrote.

        Raises:
            RunFolderError: the file is not there, or damaged.
        """
        assert point.weights is not None, "only asked of points with weights"
        if Path(point.weights).name != point.weights:
            raise RunFolderError(f"the weights of point {point.index} are not in the run folder: {point.weights!r}")
        file = self._inside() / "points" / point.weights
        try:
            return load_tensors(file)
        except RunFolderError as error:
            raise RunFolderError(f"cannot read the weights of point {point.index}, {file}: {error}") from error

    def read_settings(self) -> RunSettings:
        """What the run was started with.

        Raises:
            SettingsError: there is no such file, or it cannot be read.
        """
        return read_settings(self._inside() / SETTINGS_FILE)

    def save_point(self, point: PathPoint, weights: Mapping[str, Tensor], plan: CutPlan | None) -> PathPoint:
        """Write the weights of a new structure and the plan that leads to it; the point with the file's name in it.

        Raises:
            RunFolderError: it cannot be written.
            ParallelError: the processes of this job do not have the same.
        """
        if not world().is_alone:
            agreed = {
                "what goes": (point.removed_blocks, point.removed_channels),
                "the weights": rounded_digest(weights),
            }
            check_agreement(agreed, "one of them computes differently; start again with --deterministic")
        if self.path is None:
            return point
        points = self._subfolder("points")
        name = f"{point.index:03d}.safetensors"
        with written_whole(points / name) as temporary:
            save_tensors(temporary, weights)
        if plan is not None:
            write_atomically(points / f"{point.index:03d}.json", (to_json(plan, indent=1) + "\n").encode())
        return dataclasses.replace(point, weights=name)

    def save(self, state: RunState) -> None:
        """Write the path so far, the record if there is one, and last, as one file, the state.

        Raises:
            RunFolderError: a file cannot be written; the state saved before is untouched.
        """
        if self.path is None:
            return
        lines = "".join(to_json(point) + "\n" for point in state.points)
        write_atomically(self.path / PATH_FILE, lines.encode())
        if state.record is not None:
            write_atomically(self.path / "record.json", (to_json(state.record, indent=1) + "\n").encode())
        self._subfolder("state")
        save_state(self.path / STATE_FILE, {"run": dict(self.identity), **run_state_to_plain(state)})

    def write_report(self, record: Record) -> None:
        """Write report.html.

        Raises:
            RunFolderError: it cannot be written.
        """
        if self.path is not None:
            write_atomically(self.path / "report.html", render(record).encode())

    def _inside(self) -> Path:
        assert self.path is not None, "only asked where there is a folder"
        return self.path

    def _subfolder(self, name: str) -> Path:
        folder = self._inside() / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunFolderError(f"the run folder {self.path} cannot be written: {error.strerror or error}") from error
        return folder
