"""State on disk: whole or not at all, and no code in it."""

import contextlib
import errno
import os
import stat
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from amsc.errors import AmscWarning, RunFolderError
from amsc.storage import clear_parts, read_text, write_atomically, written_whole
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
    assert {path.name for path in tmp_path.iterdir()} <= {"state.pt", "state.before.pt"}


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


def test_a_file_and_its_name_are_on_the_disk_before_writing_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    def rename(source: Any, target: Any) -> None:
        done.append("rename")
        replace(source, target)

    monkeypatch.setattr("os.fsync", fsync)
    monkeypatch.setattr("os.replace", rename)
    write_atomically(tmp_path / "record.json", b"words")
    assert done == ["file", "rename", "folder"]


def test_an_interrupted_writer_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "odd [name].pt"
    path.write_bytes(b"old")
    with contextlib.suppress(KeyboardInterrupt), written_whole(path) as temporary:
        temporary.write_bytes(b"half")
        temporary.with_name(f"{temporary.name}.data").write_bytes(b"more of it")
        raise KeyboardInterrupt
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"old"]


def test_what_killed_writers_left_can_be_cleared(tmp_path: Path) -> None:
    write_atomically(tmp_path / "state.pt", b"whole")
    with written_whole(tmp_path / "other.pt") as temporary:
        (tmp_path / f"{temporary.name}x").write_bytes(b"")
        clear_parts(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]
        temporary.write_bytes(b"")


def _saved_twice(folder: Path) -> Path:
    path = folder / "state.pt"
    for step in (1, 2):
        save_state(path, {"step": step, "tensor": torch.full((50,), float(step))})
    return path


@pytest.mark.parametrize("way", ["cut off", "one bit", "empty", "gone"])
def test_where_the_newest_state_is_torn_the_one_before_is_read(tmp_path: Path, way: str) -> None:
    path = _saved_twice(tmp_path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.full((50,), 2.0).numpy().tobytes()) + 99] ^= 1  # no reader of zip files would see it
    path.unlink()
    if way != "gone":
        path.write_bytes({"cut off": content[:-300], "one bit": content, "empty": b""}[way])
    with pytest.warns(AmscWarning, match="gone on with from the state saved before it"):
        assert load_state(path)["step"] == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_state(path)["step"] == 1, "it has taken its place"


def test_where_both_are_torn_there_is_nothing_to_go_on_with(tmp_path: Path) -> None:
    path = _saved_twice(tmp_path)
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(RunFolderError, match=r"damaged.*and so is state.before.pt; start again"):
        load_state(path)


def test_the_one_before_is_kept_also_where_there_are_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.link", _full_disk)
    path = _saved_twice(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["state.before.pt", "state.pt"]
    path.unlink()
    with pytest.warns(AmscWarning, match="gone"):
        assert load_state(path)["step"] == 1


def test_a_state_that_is_compressed_is_refused(tmp_path: Path) -> None:
    path = _saved_twice(tmp_path)
    (tmp_path / "state.before.pt").unlink()
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "bomb", "w", zipfile.ZIP_DEFLATED) as bomb:
        for entry in whole.infolist():
            bomb.writestr(entry.filename, whole.read(entry))
    os.replace(tmp_path / "bomb", path)
    with pytest.raises(RunFolderError, match="compressed"):
        load_state(path)


def test_a_state_that_cannot_be_read_now_is_not_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk may answer again, and then the newest state is there."""
    path = _saved_twice(tmp_path)
    newest = path.read_bytes()

    def fails(*args: object, **options: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(torch, "load", fails)
        with pytest.raises(RunFolderError, match="cannot read the saved state"):
            load_state(path)
    assert path.read_bytes() == newest


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    """To open it would be to wait for who writes to it."""
    os.mkfifo(tmp_path / "record.json")
    with pytest.raises(OSError, match="it is no file"):
        read_text(tmp_path / "record.json")
