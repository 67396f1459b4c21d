"""Two processes that do one job give what one gives, and say it in both where they do not hold the same."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

WORKER = Path(__file__).with_name("worker.py")
ROUNDING = 1e-9
"""Of sums in float64 that are taken in another order."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("together")


@pytest.fixture(scope="module")
def both(folder: Path) -> list[dict[str, Any]]:
    """What each of two processes found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(folder)],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    words = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(words)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("work", ["training", "scores", "derivatives", "reconstruction"])
def test_two_processes_give_what_one_gives(both: list[dict[str, Any]], work: str) -> None:
    assert [found["size"] for found in both] == [2, 2]
    alone, *together = both[0]["alone"][work], *(found["together"][work] for found in both)
    assert together[0] == together[1]
    assert together[0] == pytest.approx(alone, rel=ROUNDING, abs=ROUNDING)


def test_a_job_is_written_once_and_known_to_both(both: list[dict[str, Any]], folder: Path) -> None:
    assert both[0]["run"] == both[1]["run"]
    record = json.loads((folder / "run" / "record.json").read_text())
    assert record["score_after"] == both[0]["run"]["score"]
    assert [record["removed_blocks"], record["removed_channels"]] == both[0]["run"]["gone"]
    assert record["removed_channels"]


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("weights", "ParallelError: the 2 processes of this job differ in the network's weights"),
        ("data", "ParallelError: the 2 processes of this job differ in the data"),
        ("settings", "ParallelError: the 2 processes of this job differ in the settings"),
        ("capture", "SettingsError: capture records the steps of a single process"),
        ("failure of one", "FileNotFoundError: only here"),
        ("of the first", "FileNotFoundError"),
        ("a short batch", "DataError: 2 processes share the examples of each batch, and one of 1 cannot be shared"),
    ],
)
def test_what_goes_wrong_in_one_is_said_in_both(both: list[dict[str, Any]], case: str, words: str) -> None:
    assert all(found["refusals"][case].startswith(words) for found in both), both[0]["refusals"][case]


def test_a_wish_to_stop_of_one_stops_both_after_the_same_step(both: list[dict[str, Any]]) -> None:
    first, second = (found["stopping"] for found in both)
    assert first == second
    assert first["reason"] == "Terminated"
    assert 0 < first["steps"] < 29
    assert first["sums"] == first["undisturbed"]
