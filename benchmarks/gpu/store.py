"""What is kept from one call to the next: all results in one file, the cell in progress, each network's dense weights.

A folder of at most six files, each below 16 MiB: results.json, checkpoint.pt and dense-NETWORK.pt. Each is written
whole or not at all, so that a call may be cut off at any moment."""

import hashlib
import json
import re
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from amsc.errors import AmscError
from amsc.storage import clear_parts, load_state, save_state, write_atomically

__all__ = ["RESULTS", "Store", "StoreError", "read_results"]

RESULTS = "results.json"
CHECKPOINT = "checkpoint.pt"
Result = dict[str, Any]


class StoreError(AmscError):
    """What earlier calls left cannot be gone on with."""


def read_results(folder: Path) -> dict[str, Any]:
    """What `Store` wrote to results.json: "setup", "calls", "begun" and "results" by name.

    Raises:
        StoreError: there is no such file, or it is not one of these.
    """
    try:
        found = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot read the results in {folder}: {error}") from error
    if not isinstance(found, dict) or not {"setup", "calls", "begun", "results"} <= found.keys():
        raise StoreError(f"{folder / RESULTS} holds no results of this benchmark; name another folder")
    return found


class Store:
    """The folder `path`; made, or gone on with.

    Args:
        setup: what the results are of; those that are there must be of the same.
        earlier: a folder that an earlier call left; taken over if `path` has no results.
        ahead: a folder of what was cut ahead; only `prepare` writes to it.

    Raises:
        StoreError: what is there is of something else, or cannot be read.
    """

    def __init__(
        self, path: Path, setup: Mapping[str, Any], *, earlier: Path | None = None, ahead: Path | None = None
    ) -> None:
        self.path, self._ahead = path, ahead
        self._writing = threading.Lock()
        path.mkdir(parents=True, exist_ok=True)
        clear_parts(path)
        if earlier is not None and not (path / RESULTS).exists():
            _take_over(earlier, path)
        self._found: dict[str, Any] = {"setup": dict(setup), "calls": [], "begun": {}, "results": {}}
        if (path / RESULTS).exists():
            self._found = read_results(path)
        self._in_progress = load_state(path / CHECKPOINT)["cell"] if (path / CHECKPOINT).exists() else None
        if self._found["setup"] != dict(setup):
            raise StoreError(f"the results in {path} are of {self._found['setup']}, not of {dict(setup)}")

    @property
    def results(self) -> Mapping[str, Result]:
        """All results by name."""
        return self._found["results"]

    @property
    def calls(self) -> list[Mapping[str, Any]]:
        """The machine of each call, and how long it was."""
        return self._found["calls"]

    def put(self, name: str, result: Result) -> None:
        """Keep a result; a cell in progress of that name is done."""
        self.results[name] = result  # type: ignore[index]
        self._found["begun"].pop(name, None)
        self._write()
        if self._in_progress == name:
            (self.path / CHECKPOINT).unlink()
            self._in_progress = None

    def good(self, name: str) -> Result | None:
        """The result, unless it is not there or a failure."""
        found = self.results.get(name)
        return None if found is None or "failure" in found else found

    def forget_failures(self) -> None:
        """They are tried again."""
        self._found["results"] = {name: one for name, one in self.results.items() if "failure" not in one}
        self._write()

    def begin_call(self, machine: Mapping[str, Any]) -> None:
        """Note on what machine the results from now on are made."""
        self._found["calls"].append(dict(machine))
        self._write()

    def began(self, name: str, seconds_left: float) -> None:
        """Something that cannot be divided is begun; if its end is never noted, so many seconds were not enough."""
        self._found["begun"][name] = round(seconds_left, 1)
        self._write()

    def ended(self, name: str) -> None:
        """It came to its end."""
        self._found["begun"].pop(name, None)
        self._write()

    def not_enough(self, name: str) -> float:
        """Seconds in which it was not done when it was tried; 0 if it never was."""
        return float(self._found["begun"].get(name, 0.0))

    def save_checkpoint(self, name: str, state: Mapping[str, Any]) -> None:
        """Keep how far the cell `name` is, in the place of any other."""
        with self._writing:
            save_state(self.path / CHECKPOINT, {"cell": name, **state}, keep=False)  # files are few and small
        self._in_progress = name

    def checkpoint(self, name: str) -> dict[str, Any] | None:
        """How far the cell `name` was; None if it was not begun."""
        return load_state(self.path / CHECKPOINT) if self._in_progress == name else None

    def cell_in_progress(self) -> str | None:
        """The name of the cell of which there is a checkpoint."""
        return self._in_progress

    def save_dense(self, network: str, weights: Mapping[str, Tensor]) -> None:
        """Keep the weights that all cells of the network start from."""
        with self._writing:
            save_state(self._dense(network), {"weights": weights}, keep=False)

    def dense(self, network: str) -> dict[str, Tensor]:
        """What `save_dense` kept.

        Raises:
            StoreError: it is not there.
        """
        if not self._dense(network).exists():
            raise StoreError(
                f"the results have a dense {network}, but its weights ({self._dense(network).name}) are not in "
                f"{self.path}; bring them along, or start in a new folder"
            )
        weights: dict[str, Tensor] = load_state(self._dense(network))["weights"]
        return weights

    def digest(self, network: str) -> str:
        """What tells the dense weights of the network from others."""
        digest = hashlib.blake2b(digest_size=8)
        for tensor in self.dense(network).values():
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

    def prepare(self, name: str, of: str, content: Mapping[str, Any]) -> None:
        """Keep what was cut ahead `of` some weights."""
        assert self._ahead is not None, "only where there is a folder"
        self._ahead.mkdir(parents=True, exist_ok=True)
        save_state(self._prepared(name), {"of": of, **content})

    def prepared(self, name: str, of: str) -> dict[str, Any] | None:
        """What `prepare` kept; None where it did not, or of other weights."""
        if self._ahead is None or not self._prepared(name).exists():
            return None
        found = load_state(self._prepared(name))
        return found if found["of"] == of else None

    def _prepared(self, name: str) -> Path:
        assert self._ahead is not None, "only where there is a folder"
        return self._ahead / f"{re.sub('[^A-Za-z0-9.]+', '-', name)}.pt"

    def close(self) -> None:
        """Let a write that is under way come to its end, and begin no other."""
        self._writing.acquire(timeout=3)

    def _dense(self, network: str) -> Path:
        return self.path / f"dense-{network}.pt"

    def _write(self) -> None:
        with self._writing:
            text = json.dumps(self._found, indent=1) + "\n"
            write_atomically(self.path / RESULTS, text.encode())


def _take_over(earlier: Path, path: Path) -> None:
    """Copy what an earlier call left; the results last, since they say that all is there.

    Raises:
        StoreError: there is no such folder.
    """
    if not earlier.is_dir():
        raise StoreError(f"there is no folder {earlier}; make it for a first call, or leave --from out")
    if not (earlier / RESULTS).exists():
        return
    for file in (*sorted(earlier.glob("*.pt")), earlier / RESULTS):
        shutil.copyfile(file, path / file.name)
