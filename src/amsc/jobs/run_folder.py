"""The folder of a run: its path, points and state on disk, each file written whole or not at all."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor

from amsc.errors import RunFolderError
from amsc.jobs.fingerprint import digest_of
from amsc.jobs.run_identity import refuse_another_run
from amsc.jobs.run_lock import HIDDEN
from amsc.jobs.run_state import RunState, run_state_from_plain, run_state_to_plain
from amsc.jobs.search_log import SearchLog
from amsc.parallel import check_agreement, world
from amsc.records import PathPoint, Record, to_json
from amsc.report import render
from amsc.settings import RunSettings, read_settings, write_settings
from amsc.storage import load_state, save_state, write_atomically
from amsc.surgery import CutPlan

__all__ = ["RunFolder", "check_usable"]

SETTINGS_FILE = "settings.toml"
STATE_FILE = Path("state", "state.pt")
SEARCH_FILE = Path("state", "search.jsonl")


def check_usable(path: Path | None, *, resume: bool) -> None:
    """Refuse a folder that cannot be used; one that holds nothing but its settings counts as new.

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
    if resume and not (path / STATE_FILE).is_file():
        found = f"it holds {words}, but no {STATE_FILE}" if present else "there is nothing in it"
        raise RunFolderError(f"there is no run to resume in {path}: {found}; start one without resume, in a new folder")
    if not resume and set(present) - {SETTINGS_FILE}:
        is_run = (path / STATE_FILE).is_file()
        resume_it = f", or go on with the run in it: resume=True in Python, or amsc resume {path}" if is_run else ""
        raise RunFolderError(f"{path} already holds {words}; name another folder{resume_it}")


@dataclass(frozen=True)
class RunFolder:
    """A run's folder, or nowhere: with `path` None nothing is read or written. `identity` is what must be the same for
    a run to be resumed."""

    path: Path | None
    identity: Mapping[str, Any]

    def begin(self, state: RunState, run: RunSettings) -> None:
        """Write the first state, and settings.toml, unless whoever made the folder has done so.

        Raises:
            RunFolderError: it cannot be written.
        """
        if self.path is None:
            return
        self.save(state)
        if not (self.path / SETTINGS_FILE).exists():
            write_settings(self.path / SETTINGS_FILE, run)

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
        if not (path / STATE_FILE).is_file():
            raise RunFolderError(
                f"{path} holds no run to pick from or go on with: there is no {path / STATE_FILE}, which every run of "
                "compress writes"
            )
        saved = load_state(path / STATE_FILE)
        refuse_another_run(path, saved.pop("run", {}), self.identity)
        try:
            return run_state_from_plain(saved)
        except (TypeError, KeyError, ValueError) as error:
            raise RunFolderError(f"the saved state {path / STATE_FILE} does not fit ({error}); start again") from error

    def read_weights(self, point: PathPoint) -> dict[str, Tensor]:
        """The weights that `save_point` wrote.

        Raises:
            RunFolderError: the file is not there, or damaged.
        """
        assert point.weights is not None, "only asked of points with weights"
        file = self._inside() / "points" / point.weights
        try:
            return from_safetensors(file.read_bytes())
        except (OSError, SafetensorError) as error:
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
            agreed = {"what goes": (point.removed_blocks, point.removed_channels), "the weights": digest_of(weights)}
            check_agreement(agreed, "one of them computes differently; start again with --deterministic")
        if self.path is None:
            return point
        points = self._subfolder("points")
        name = f"{point.index:03d}.safetensors"
        tensors = {key: tensor.detach().to("cpu", copy=True).contiguous() for key, tensor in weights.items()}
        write_atomically(points / name, to_safetensors(tensors))
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
        write_atomically(self.path / "path.jsonl", lines.encode())
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
