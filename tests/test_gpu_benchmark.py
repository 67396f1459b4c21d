"""The benchmark for a GPU that is at hand for minutes: a call goes on where the one before was stopped, and a failure
is a result; the CPU stands in for the GPU."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import torch
from pyarrow import parquet

from amsc.errors import InputError
from data.conftest import Pictures

ROOT = Path(__file__).parent.parent
WAYS = ("dense", "L1, uniform, no distillation")
DENSE = "resnet20 dense 1 seed 0 epochs 2 batch 8"
L1 = "resnet20 L1, uniform, no distillation 0.41 seed 0 epochs 2 batch 8"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 training and 40 test images, of one colour for each of ten classes."""
    made = tmp_path_factory.mktemp("data")
    for split, count in (("train", 64), ("test", 40)):
        images = [{"bytes": Pictures().png(25 * (row % 10)), "path": ""} for row in range(count)]
        table = pyarrow.table({"img": images, "label": [row % 10 for row in range(count)]})
        parquet.write_table(table, made / f"{split}.parquet")
    return made


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Gives a module of the benchmark by its name."""
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"benchmarks.gpu.{name}")


def call(gpu: Any, folder: Path, out: Path, *more: str) -> int:
    """The exit code of a small call."""
    words = ("--device", "cpu", "--limit", "56", "--batch", "8", "--epochs", "2", "--networks", "resnet20")
    code: int = gpu("call").main([*words, "--seeds", "0", "--data", str(folder), "--out", str(out), *more])
    return code


def results_of(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())["results"]
    return results


def stop_after_an_epoch(gpu: Any, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Let the time of a call be over once a cell of this way has trained for an epoch."""
    keeper, clock = gpu("training")._Keeper, gpu("clock").Clock
    usual, left = keeper.__call__, [1e9]

    def hears(self: Any, state: Any) -> None:
        left[0] = 0.0 if self._cell.way == way and state.epochs == 1 else 1e9
        usual(self, state)

    monkeypatch.setattr(keeper, "__call__", hears)
    monkeypatch.setattr(clock, "left", lambda self: left[0])


def test_a_call_goes_on_where_the_one_before_was_stopped(gpu: Any, folder: Path, tmp_path: Path) -> None:
    first, second, whole, ahead = (tmp_path / name for name in ("first", "second", "whole", "ahead"))
    only_dense = ("--stages", "cells", "--ways", "dense")
    both = ("--stages", "cells", "--ways", *WAYS, "--shares", "0.41", "--ahead", str(ahead))

    with pytest.MonkeyPatch.context() as patch:
        stop_after_an_epoch(gpu, patch, "dense")
        assert call(gpu, folder, first, *only_dense) == 0
    assert DENSE not in results_of(first)
    assert call(gpu, folder, second, *only_dense, "--from", str(first)) == 0
    assert call(gpu, folder, whole, *only_dense) == 0
    assert results_of(second)[DENSE]["accuracy"] == results_of(whole)[DENSE]["accuracy"]
    found, expected = (torch.load(of / "dense-resnet20.pt", weights_only=True)["state"] for of in (second, whole))
    torch.testing.assert_close(found["weights"], expected["weights"], rtol=0, atol=0)

    assert call(gpu, folder, second, *both, "--prepare", "1") == 0
    assert L1 not in results_of(second)
    with pytest.MonkeyPatch.context() as patch:
        stop_after_an_epoch(gpu, patch, WAYS[1])
        assert call(gpu, folder, second, *both) == 0
    assert {path.name for path in second.iterdir()} == {"checkpoint.pt", "dense-resnet20.pt", "results.json"}
    assert call(gpu, folder, second, *both) == 0
    results = results_of(second)
    assert results[L1]["is_ahead"]
    assert 0.39 < results[L1]["macs_share"] <= 0.41, "the cut network was made again from its plan"
    assert {path.name for path in second.iterdir()} == {"dense-resnet20.pt", "results.json"}
    assert call(gpu, folder, second, *both) == 0
    assert results_of(second) == results, "all is there, and nothing is done again"

    text = gpu("table").tables(json.loads((second / "results.json").read_text()))
    change = results[L1]["accuracy"] - results[DENSE]["accuracy"]
    assert f"| L1, uniform, no distillation | 2 x 8 | {results[L1]['accuracy']:.2f}, {change:+.2f} (1)" in text


def test_networks_cut_ahead_of_other_weights_are_not_taken(gpu: Any, tmp_path: Path) -> None:
    store = gpu("store").Store(tmp_path / "out", {}, ahead=tmp_path / "ahead")
    store.prepare("a cell", "these weights", {"plan": ""})
    assert store.prepared("a cell", "these weights") == {"of": "these weights", "plan": ""}
    assert store.prepared("a cell", "other weights") is None


def test_what_fails_is_a_result_and_the_call_goes_on(
    gpu: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_memory(lab: Any) -> dict[str, Any]:
        raise InputError("forward failed") from torch.OutOfMemoryError("CUDA out of memory")

    usual = gpu("jobs").matrix_product
    options = ("--networks", "densenet40", "--stages", "speed")
    monkeypatch.setattr(gpu("jobs"), "matrix_product", without_memory)
    assert call(gpu, folder, tmp_path, *options) == 0
    results = results_of(tmp_path)
    assert results["limit cpu"]["failure"].startswith("out of memory: InputError: forward failed")
    monkeypatch.setattr(gpu("jobs"), "matrix_product", usual)
    assert call(gpu, folder, tmp_path, *options) == 0
    assert results_of(tmp_path) == results, "it is there"
    assert call(gpu, folder, tmp_path, *options, "--retry") == 0
    assert results_of(tmp_path)["limit cpu"]["macs_per_second"] > 0


def test_a_cut_that_the_device_cannot_make_is_made_on_the_processor(gpu: Any) -> None:
    def fails() -> int:
        raise RuntimeError("no kernel for this")

    assert gpu("lab").first_that_works({"cuda": fails, "cpu": lambda: 1}) == (
        1,
        {"way": "cpu", "failed_before": "cuda: RuntimeError: no kernel for this; "},
    )
    with pytest.raises(RuntimeError, match="no kernel"):
        gpu("lab").first_that_works({"cuda": fails, "again": fails})

    def ends() -> int:
        raise gpu("clock").OutOfTime("over")

    with pytest.raises(gpu("clock").OutOfTime):
        gpu("lab").first_that_works({"cuda": ends, "cpu": lambda: 1})


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--data", "nowhere"), "nowhere is not there"),
        (("--weights", "."), "has no weights of resnet20"),
        (("--from", "nowhere"), "there is no folder nowhere"),
    ],
)
def test_what_cannot_be_used_is_said(
    gpu: Any, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, str], said: str
) -> None:
    words = [
        "--device",
        "cpu",
        "--limit",
        "56",
        "--networks",
        "resnet20",
        "--data",
        str(folder),
        "--out",
        str(tmp_path),
    ]
    assert gpu("call").main([*words, *more]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--data", str(folder), "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr[:28]) == (2, "there is no CUDA device; --d")
    assert not list(tmp_path.iterdir())
