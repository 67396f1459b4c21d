"""Models on the Hugging Face hub, which stands in here for itself: its cache is a folder of the test's."""

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from amsc import cut, load, plan_cut, save, trace
from amsc.errors import AmscError, RunFolderError, SettingsError


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A hub with one model, and what it was asked for."""
    found: list[dict[str, Any]] = []

    def snapshot_download(repository: str, **options: Any) -> str:
        found.append({"repository": repository, **options})
        if repository != "me/small":
            raise OSError(f"404 Client Error: {repository} not found\nmore words")
        shutil.copytree(tmp_path / "saved", tmp_path / "cache")
        return str(tmp_path / "cache")

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    return found


@pytest.mark.parametrize(("name", "revision"), [("hf:me/small", None), ("hf:me/small@v1", "v1")])
def test_a_model_is_loaded_from_the_hub(
    name: str, revision: str | None, tmp_path: Path, asked: list[dict[str, Any]]
) -> None:
    model, inputs = build().eval(), torch.randn(3, 4)
    small = cut(model, plan_cut(trace(model, inputs), channels={"0": [1, 2]}))
    save(small, tmp_path / "saved")
    torch.testing.assert_close(load(name, build)(inputs), small(inputs), rtol=0, atol=0)
    (found,) = asked
    assert (found["repository"], found["revision"]) == ("me/small", revision)
    assert found["allow_patterns"] == ["config.json", "model.safetensors"], "no code is downloaded"


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("hf:me/other", RunFolderError, "hf:me/other cannot be had from the hub .OSError: 404 Client Error"),
        ("hf:small", SettingsError, "expected a model on the hub as hf:OWNER/NAME"),
        ("hf:me/small/part", SettingsError, "expected a model on the hub as hf:OWNER/NAME"),
    ],
)
def test_what_is_not_there_is_an_error(
    name: str, error: type[AmscError], words: str, asked: list[dict[str, Any]]
) -> None:
    with pytest.raises(error, match=words):
        load(name, build)


def test_without_the_package_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(SettingsError, match=r"huggingface_hub: pip install 'amsc.hub.'"):
        load("hf:me/small", build)


def test_both_files_may_be_read_by_whoever_may_read_one(tmp_path: Path) -> None:
    save(build(), tmp_path / "saved")
    config, weights = (tmp_path / "saved" / name for name in ("config.json", "model.safetensors"))
    assert weights.stat().st_mode == config.stat().st_mode
