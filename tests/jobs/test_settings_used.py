"""What a run notes of its settings is what was done."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from amsc import Settings, Target, compress
from amsc.data import LoaderData, batch_size_of, read_digits
from amsc.errors import AmscWarning, TargetError
from amsc.jobs.preparation import settings_used, threads_and_determinism
from amsc.jobs.run_lock import WRITER_FILE
from amsc.settings import read_settings
from small_runs import run_small
from training.small import small_data, small_net

BATCHES = [(torch.zeros(3, 1), torch.zeros(3, dtype=torch.long)) for _ in range(4)]
LOADED = LoaderData(BATCHES, BATCHES)


def test_the_batch_size_is_that_of_the_data() -> None:
    assert batch_size_of(LOADED) == 3
    assert batch_size_of(LoaderData(torch.utils.data.DataLoader(BATCHES, 2), BATCHES)) == 2  # type: ignore[arg-type]
    assert batch_size_of(small_data(batch_size=32)) == 32
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert settings_used(Settings(), LOADED).batch_size == 3
        assert settings_used(Settings(batch_size=3, limit=12), LOADED) == Settings(batch_size=3, limit=12)
        assert settings_used(Settings(batch_size=9), LOADED, tell=False).batch_size == 3


def test_what_the_data_do_not_do_is_told_and_not_noted() -> None:
    with pytest.warns(AmscWarning, match=r"without batch_size=64 \(its batches have 3 .*limit=5 \(it has 12 training"):
        used = settings_used(Settings(batch_size=64, limit=5), LOADED)
    assert used == Settings(batch_size=3)


def test_record_and_settings_file_tell_the_truth(tmp_path: Path) -> None:
    data = read_digits(seed=0, batch_size=50, limit=100)
    settings = Settings(path_epochs=0, finetune_epochs=0, limit=200)
    record = run_small(tmp_path / "run", data=data, settings=settings).record
    assert (record.settings["batch_size"], record.settings["limit"]) == (50, 200)
    assert read_settings(tmp_path / "run" / "settings.toml").settings.batch_size == 50


def test_threads_are_set_and_given_back() -> None:
    before = torch.get_num_threads()
    with threads_and_determinism(Settings(threads=before + 1)):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with threads_and_determinism(Settings()):
        assert torch.get_num_threads() == before


def test_threads_hold_for_a_run(monkeypatch: Any) -> None:
    seen = []

    class Noting:
        def update(self, phase: str, step: int, steps: int, **values: float) -> None:
            seen.append(torch.get_num_threads())

    settings = Settings(path_epochs=0.1, path_points=1, finetune_epochs=0, threads=torch.get_num_threads() + 1)
    run_small(settings=settings, progress=Noting())
    assert set(seen) == {settings.threads}


def test_warnings_name_the_line_that_started_the_run(tmp_path: Path) -> None:
    (tmp_path / WRITER_FILE).write_text("{}")  # of a process that was killed
    data, settings = small_data(batch_size=32), Settings(batch_size=9)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(TargetError):
            compress(
                small_net(), torch.zeros(1, 1, 9, 9), data, target=Target(macs=1e-4), settings=settings, out=tmp_path
            )
    found = {word: w.filename for w in caught for word in ("batch_size", "lock", "shape") if word in str(w.message)}
    assert found == dict.fromkeys(("batch_size", "lock", "shape"), __file__)
