"""The folder of a run: its path, points and state on disk, each file written whole or not at all."""

import dataclasses
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from amsc.data import Data
from amsc.errors import RunFolderError
from amsc.jobs.fingerprint import fingerprint
from amsc.jobs.run_state import RunState, run_state_from_plain, run_state_to_plain
from amsc.limits.target import Target, format_target
from amsc.records import PathPoint, to_json
from amsc.settings import RunSettings, Settings, plain_settings, read_settings, write_settings
from amsc.storage import load_state, save_state, write_atomically
from amsc.surgery import CutPlan

__all__ = ["RunFolder", "run_identity"]

SETTINGS_FILE = "settings.toml"


def run_identity(model_name: str, model: nn.Module, data: Data, target: Target, settings: Settings) -> dict[str, Any]:
    """What must be the same for a run to be resumed."""
    said = {"model": model_name, "data": data.name, "target": format_target(target), **plain_settings(settings)}
    return said | fingerprint(model, data)


@dataclass(frozen=True)
class RunFolder:
    """A run's folder, or nowhere: with `path` None nothing is read or written."""

    path: Path | None
    identity: Mapping[str, Any]

    def check(self, *, resume: bool) -> None:
        """Refuse a folder that cannot be used; one that holds nothing but its settings counts as new.

        Raises:
            RunFolderError: it holds something and `resume` is not set, there is nothing to resume, or it cannot be
                written.
        """
        if self.path is None:
            if resume:
                raise RunFolderError("there is no run to resume: say in which folder it is")
            return
        if self.path.exists() and not self.path.is_dir():
            raise RunFolderError(f"{self.path} is a file; name a folder for the run")
        present = sorted(item.name for item in self.path.iterdir()) if self.path.is_dir() else []
        if resume and not present:
            raise RunFolderError(f"there is no run to resume in {self.path}; start it without resume")
        if not resume and set(present) - {SETTINGS_FILE}:
            raise RunFolderError(
                f"{self.path} already holds {', '.join(present[:3])}{' ...' if len(present) > 3 else ''}; "
                "name another folder, or resume the run in it"
            )
        self._check_writable()

    def open(self, *, resume: bool) -> RunState:
        """The state to go on from: the saved one with `resume`, a fresh one otherwise or if none was saved yet.

        Raises:
            RunFolderError: it cannot be written, the saved state is damaged, or belongs to another run.
        """
        if self.path is None:
            return RunState()
        try:
            for folder in (self.path / "points", self.path / "state"):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunFolderError(f"the run folder {self.path} cannot be written: {error.strerror or error}") from error
        return self._load() if resume and self._state_file.is_file() else RunState()

    def read(self) -> RunState:
        """The saved state, of whatever run it is; nothing is written.

        Raises:
            RunFolderError: there is none, or it is damaged.
        """
        if not self._state_file.is_file():
            raise RunFolderError(f"{self.path} holds no run: there is no {self._state_file}")
        return self._load()

    def read_weights(self, point: PathPoint) -> dict[str, Tensor]:
        """The weights that `save_point` wrote.

        Raises:
            RunFolderError: the file is not there, or damaged.
        """
        assert self.path is not None, "only asked where there is a folder"
        assert point.weights is not None, "only asked of points with weights"
        file = self.path / "points" / point.weights
        try:
            return from_safetensors(file.read_bytes())
        except (OSError, SafetensorError) as error:
            raise RunFolderError(f"cannot read the weights of point {point.index}, {file}: {error}") from error

    @property
    def _state_file(self) -> Path:
        assert self.path is not None, "only asked where there is a folder"
        return self.path / "state" / "state.pt"

    def _check_writable(self) -> None:
        assert self.path is not None, "only asked where there is a folder"
        probe = self.path / f".{uuid.uuid4().hex}.probe"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"amsc")
            probe.unlink()
        except OSError as error:
            raise RunFolderError(
                f"the run folder {self.path} cannot be written: {error.strerror or error}; name another one"
            ) from error

    def write_settings(self, settings: Settings, model_name: str, target: Target) -> None:
        """Write settings.toml, unless whoever made the folder has done so."""
        if self.path is not None and not (self.path / SETTINGS_FILE).exists():
            run = RunSettings(model=model_name or None, target=format_target(target), settings=settings)
            write_settings(self.path / SETTINGS_FILE, run)

    def read_settings(self) -> RunSettings:
        """What the run was started with.

        Raises:
            SettingsError: there is no such file, or it cannot be read.
        """
        assert self.path is not None, "nothing was written"
        return read_settings(self.path / SETTINGS_FILE)

    def save_point(self, point: PathPoint, weights: Mapping[str, Tensor], plan: CutPlan | None) -> PathPoint:
        """Write the weights of a new structure and the plan that leads to it; the point with the file's name in it."""
        if self.path is None:
            return point
        name = f"{point.index:03d}.safetensors"
        tensors = {key: tensor.detach().to("cpu", copy=True).contiguous() for key, tensor in weights.items()}
        write_atomically(self.path / "points" / name, to_safetensors(tensors))
        if plan is not None:
            text = to_json(plan, indent=1) + "\n"
            write_atomically(self.path / "points" / f"{point.index:03d}.json", text.encode())
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
        save_state(self._state_file, {"run": dict(self.identity), **run_state_to_plain(state)})

    def _load(self) -> RunState:
        saved = load_state(self._state_file)
        was = saved.pop("run", {})
        changed = [key for key in self.identity if was.get(key) != self.identity[key]]
        if changed:
            key = changed[0]
            raise RunFolderError(
                f"the run in {self.path} had {key} = {was.get(key)!r}, not {self.identity[key]!r}; "
                "resume it with the same network, data and settings, or start in another folder"
            )
        try:
            return run_state_from_plain(saved)
        except (TypeError, KeyError, ValueError) as error:
            raise RunFolderError(f"the saved state {self._state_file} does not fit ({error}); start again") from error
