"""What somebody who means harm puts into a file: code, links, bombs, and claims of size."""

import io
import json
import os
import pickle
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch

from amsc.cli import main
from amsc.data import open_data
from amsc.errors import AmscError, DataError, RunFolderError, SettingsError
from amsc.jobs.reading import read_record
from amsc.jobs.run_folder import RunFolder, check_usable
from amsc.models import load_weights
from amsc.settings import read_settings
from amsc.storage import append_line, read_text
from amsc.words.json_text import plain_json
from fuzz_targets import build

PATIENCE = 300 << 20
"""Bytes that reading what is refused may take."""


class Evil:
    """Makes a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def _huge_png(side: int) -> bytes:
    """A picture of `side` x `side` black pixels, in a few kilobytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1 << 20), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Evil(mark)))
    torch.save({"state_dict": Evil(mark)}, tmp_path / "zip.pt")
    for name in ("raw.pt", "zip.pt"):
        with pytest.raises(AmscError):
            load_weights(build(), tmp_path / name)
    assert not mark.exists()


def test_a_function_is_not_called_because_a_file_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("evil.py").write_text("from pathlib import Path\nPath('ran').touch()\ndef build():\n    pass\n")
    for part in ("model", "data", "task"):
        named = {"model": "digits_resnet", "data": "digits", "task": "classification", part: "evil:build"}
        lines = [f'{key} = "{value}"' for key, value in {**named, "target": "macs=50%"}.items()]
        Path("settings.toml").write_text("\n".join(["[run]", *lines]))
        bench = ['networks = ["{model}"]', 'data = "{data}"', 'task = "{task}"', 'budgets = ["macs=50%"]']
        Path("bench.toml").write_text("\n".join(["[bench]", *(line.format(**named) for line in bench), "[methods.x]"]))
        for words in (
            ["resume", "."],
            ["pick", ".", "--target", "macs=50%"],
            ["compress", "--settings=settings.toml"],
        ):
            assert main(words) == 2
            assert "evil:build" in capsys.readouterr().err
        assert main(["bench", "bench.toml", "--out", "out"]) == 2
        assert "--allow-functions" in capsys.readouterr().err
    assert not Path("ran").exists()


def test_links_do_not_lead_out_of_a_run_folder(tmp_path: Path) -> None:
    mine, run = tmp_path / "mine.txt", tmp_path / "run"
    mine.write_text("mine\n")
    (run / "state").mkdir(parents=True)
    (run / "state" / "search.jsonl").symlink_to(mine)
    with pytest.raises(RunFolderError, match="leads out of the run folder"):
        RunFolder(run, {}).read()
    with pytest.raises(RunFolderError, match="leads out of the run folder"):
        check_usable(run, resume=True)
    with pytest.raises(RunFolderError, match="symbolic link"):
        append_line(run / "state" / "search.jsonl", "{}")
    assert mine.read_text() == "mine\n"


@pytest.mark.parametrize("side", [8_000, 50_000])
def test_a_picture_that_unpacks_to_gigabytes_is_refused_by_its_head(tmp_path: Path, side: int) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    for number in range(30):
        (tmp_path / f"{number}.png").write_bytes(_huge_png(side))
    rows = [{"bytes": _huge_png(side)}] * 20
    parquet.write_table(pyarrow.table({"image": rows, "label": [0, 1] * 10}), tmp_path / "a.parquet")
    for data in (f"folder:{tmp_path}", f"parquet:{tmp_path / 'a.parquet'}"):
        tracemalloc.start()
        with pytest.raises(DataError, match=r"pixels|exceeds limit"):
            open_data(data)
        assert tracemalloc.get_traced_memory()[1] < PATIENCE
        tracemalloc.stop()


def test_the_same_picture_a_million_times_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("amsc.data.parquet.memory_bytes", lambda: 50 << 20)
    once = pyarrow.array([bytes(1 << 20)])
    column = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 4000, pyarrow.int32()), once)
    parquet.write_table(pyarrow.table({"image": column}), tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 1 << 20
    with pytest.raises(DataError, match="more than this machine has"):
        open_data(f"parquet:{tmp_path / 'a.parquet'}")


def test_json_and_toml_that_are_nested_too_deeply_or_too_large_are_refused(tmp_path: Path) -> None:
    for text in ("[" * 100_000, '{"a":' * 3000 + "1" + "}" * 3000, "[" * 60 + "]" * 60):
        with pytest.raises(ValueError, match="nested too deeply"):
            plain_json(text)
        (tmp_path / "record.json").write_text(text)
        with pytest.raises(RunFolderError):
            read_record(tmp_path, "0")
    (tmp_path / "settings.toml").write_text("[run]\nmodel = " + "[" * 5000)
    with pytest.raises(SettingsError):
        read_settings(tmp_path / "settings.toml")
    with (tmp_path / "large").open("wb") as large:
        large.truncate(1 << 40)
    with pytest.raises(OSError, match="may have"):
        read_text(tmp_path / "large")
    os.replace(tmp_path / "large", tmp_path / "record.json")
    with pytest.raises(RunFolderError, match="may have"):
        read_record(tmp_path, "0")


def test_a_state_that_names_weights_elsewhere_is_refused() -> None:
    point = json.loads('{"weights": "../../mine.safetensors"}')

    class Point:
        weights, index = point["weights"], 3

    with pytest.raises(RunFolderError, match="not in the run folder"):
        RunFolder(Path("run"), {}).read_weights(Point())  # type: ignore[arg-type]


def test_formats_that_run_other_programs_are_no_images(tmp_path: Path) -> None:
    from PIL import Image

    written = io.BytesIO()
    Image.new("RGB", (8, 8)).save(written, "EPS")
    for number in range(30):
        (tmp_path / f"{number}.png").write_bytes(written.getvalue())
    with pytest.raises(DataError, match="cannot decode"):
        open_data(f"folder:{tmp_path}")
