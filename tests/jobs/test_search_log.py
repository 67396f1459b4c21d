"""A search that was stopped goes on where it was, by what it had written down, whatever became of the last line."""

import dataclasses
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from amsc import Result, Settings
from amsc.borrowing import copied
from amsc.errors import RunFolderError
from amsc.jobs.search_log import SearchLog
from amsc.storage import append_line
from amsc.training.path import candidates
from amsc.training.path.networks import Trail
from jobs.test_compress import Stopped, _essence
from small_runs import run_small
from training.small import same_tensors, small_data, trained_net

DATA = small_data()
SETTINGS = Settings.of("instant", path_points=2, reconstruction=64)
FILE = Path("state", "search.jsonl")


@dataclasses.dataclass
class StopInSearch:
    """Raises at the given event of the search, counted from 1; 0: never."""

    event: int = 0
    events: int = 0

    def update(self, phase: str, step: int, steps: int, **values: float) -> None:
        self.events += phase == "search"
        if self.event and self.events == self.event:
            raise Stopped


@pytest.fixture(scope="module")
def dense() -> nn.Module:
    return trained_net(DATA)


def run(dense: nn.Module, out: Path, **options: Any) -> Result:
    return run_small(out, model=copied(dense), data=DATA, settings=SETTINGS, **options)


@pytest.fixture(scope="module")
def whole(dense: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, int]:
    """The run that nothing stops, and how many events its search had."""
    heard = StopInSearch()
    return run(dense, tmp_path_factory.mktemp("search") / "run", progress=heard), heard.events


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a block was priced, a network scanned, and one judged, from here on."""
    counted: Counter[str] = Counter()

    def counting(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def count(*args: Any, **more: Any) -> Any:
            counted[name] += 1
            return original(*args, **more)

        monkeypatch.setattr(owner, name, count)

    counting(Trail, "tried")
    counting(Trail, "scanned")
    counting(candidates, "evaluate")
    return counted


@pytest.mark.parametrize(("share", "torn"), [(0.3, False), (0.8, True)])
def test_a_search_that_was_stopped_ends_as_if_it_had_not_been(
    dense: nn.Module, whole: tuple[Result, int], tmp_path: Path, share: float, torn: bool
) -> None:
    result, events = whole
    with pytest.raises(Stopped):
        run(dense, tmp_path / "run", progress=StopInSearch(max(2, round(share * events))))
    file = tmp_path / "run" / FILE
    if torn:  # as it is when the writer is killed, and when a disk loses what it had
        content = file.read_bytes()
        file.write_bytes(b'{"key": 1}\n\xff[]\n' + content[: -len(content.splitlines()[-1]) // 2])
    before = file.read_bytes()
    with pytest.raises(Stopped):  # at once again
        run(dense, tmp_path / "run", resume=True, progress=StopInSearch(1))
    assert file.read_bytes() == before
    resumed = run(dense, tmp_path / "run", resume=True)
    assert _essence(resumed.record) == _essence(result.record)
    assert same_tensors(resumed.model.state_dict(), result.model.state_dict())
    assert not file.exists(), "nothing of it is needed any more"


def test_what_was_found_out_is_not_asked_again(
    dense: nn.Module, whole: tuple[Result, int], tmp_path: Path, work: Counter[str]
) -> None:
    with pytest.raises(Stopped):
        run(dense, tmp_path / "run", progress=StopInSearch(whole[1] - 1))
    known = [json.loads(line)["key"] for line in (tmp_path / "run" / FILE).read_text().splitlines()]
    networks = [key for key in known if "network" in key]
    assert len(known) > len(networks) > 1
    until_the_stop = Counter(work)
    work.clear()
    run(dense, tmp_path / "run", resume=True)
    assert until_the_stop["evaluate"] == len(networks)
    assert work["evaluate"] <= 1
    assert work["tried"] < until_the_stop["tried"] / 2
    assert work["scanned"] < until_the_stop["scanned"] / 2


def test_what_is_kept_is_there_for_the_next_one(tmp_path: Path) -> None:
    file = tmp_path / "state" / "log.jsonl"
    log = SearchLog(file)
    assert log.get("a") is None
    log.keep("a", {"price": math.inf})
    with file.open("a") as torn:
        torn.write('{"key": "b", "fou')
    SearchLog(file).keep("c", {"scores": [0.1, 1 / 3]})
    again = SearchLog(file)
    assert [again.get(key) for key in "abc"] == [{"price": math.inf}, None, {"scores": [0.1, 1 / 3]}]
    again.forget()
    assert again.get("a") is None
    assert not file.exists()


def test_without_a_folder_nothing_is_kept() -> None:
    log = SearchLog(None)
    log.keep("a", {"price": 1.0})
    log.forget()
    assert log.get("a") is None


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="cannot write"):
        append_line(tmp_path / "file" / "log.jsonl", "{}")
    with pytest.raises(RunFolderError, match="cannot read"):
        SearchLog(tmp_path)
