"""State on disk: whole or not at all, and no code in it."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from amsc.errors import RunFolderError
from amsc.storage import write_atomically
from amsc.training import load_state, save_state

STATE = {
    "tensors": {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(4)},
    "list": [1, 2.5, None, "word", True],
    "nested": {"deep": {"x": torch.zeros(0)}},
}


def _full_disk(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    save_state(tmp_path / "state.pt", STATE)
    loaded = load_state(tmp_path / "state.pt")
    assert loaded["list"] == STATE["list"]
    assert torch.equal(loaded["tensors"]["a"], torch.arange(6.0).view(2, 3))
    assert loaded["nested"]["deep"]["x"].shape == (0,)
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_a_view_does_not_take_its_whole_storage_to_the_disk(tmp_path: Path) -> None:
    save_state(tmp_path / "state.pt", {"row": torch.zeros(1000, 1000)[0]})
    assert (tmp_path / "state.pt").stat().st_size < 20_000


@pytest.mark.parametrize("failing", ["os.replace", "torch.save", "os.fsync"])
def test_a_full_disk_leaves_the_state_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    save_state(tmp_path / "state.pt", {"step": 1})
    with monkeypatch.context() as patched:
        patched.setattr(failing, _full_disk)
        with pytest.raises(RunFolderError, match=r"No space left.*untouched"):
            save_state(tmp_path / "state.pt", {"step": 2})
    assert load_state(tmp_path / "state.pt") == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_missing_damaged_and_foreign_states_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    with pytest.raises(RunFolderError, match="no saved state"):
        load_state(path)
    save_state(path, STATE)
    whole = path.read_bytes()
    for damaged in (b"", b"nonsense", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(RunFolderError, match="damaged"):
            load_state(path)
    torch.save({"weights": torch.zeros(1)}, path)
    with pytest.raises(RunFolderError, match="not a state of this version"):
        load_state(path)


def test_a_state_never_runs_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"format": 1, "state": Evil()}, tmp_path / "state.pt")
    with pytest.raises(RunFolderError, match="damaged"):
        load_state(tmp_path / "state.pt")
    assert not (tmp_path / "ran").exists()


def test_files_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomically(tmp_path / "record.json", b"first")
    monkeypatch.setattr("os.replace", _full_disk)
    with pytest.raises(RunFolderError, match="No space left"):
        write_atomically(tmp_path / "record.json", b"second")
    assert (tmp_path / "record.json").read_bytes() == b"first"
    assert len(list(tmp_path.iterdir())) == 1
