"""MODEL as the user writes it becomes a network, or an error that helps."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from amsc.errors import ModelError
from amsc.models import open_model

USER_CODE = """
from torch import nn
def build(): return nn.Linear(2, 3)
def number(): return 3
def broken(): raise KeyError("size")
def sized(width): return nn.Linear(width, 3)
"""


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "user_nets.py").write_text(USER_CODE)
    (tmp_path / "user_broken.py").write_text("import no_such_package\n")
    monkeypatch.delitem(sys.modules, "user_nets", raising=False)


def test_typo_suggests_the_nearest_name() -> None:
    with pytest.raises(ModelError, match="did you mean resnet56"):
        open_model("ResNet_56")
    with pytest.raises(ModelError, match=r"expected one of .*resnet20.*torchvision:NAME, timm:NAME, hf:NAME"):
        open_model("zzz")


@pytest.mark.parametrize("keyword", ["num_classes", "in_channels"])
def test_sizes_must_be_positive(keyword: str) -> None:
    options: dict[str, Any] = {keyword: 0}
    with pytest.raises(ModelError, match=keyword):
        open_model("resnet20", **options)


def test_weights_of_another_network(tmp_path: Path) -> None:
    torch.save(open_model("resnet32").state_dict(), tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"not in the model: layer1\.3\.conv1\.weight"):
        open_model("resnet20", weights=tmp_path / "w.pt")


def test_weights_are_loaded(tmp_path: Path) -> None:
    one = open_model("digits_resnet")
    torch.save(one.state_dict(), tmp_path / "w.pt")
    other = open_model("digits_resnet", weights=tmp_path / "w.pt")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.usefixtures("user_module")
def test_users_function() -> None:
    before = list(sys.path)
    model = open_model("user_nets:build", num_classes=10)
    assert isinstance(model, nn.Linear)
    assert model.out_features == 3
    assert sys.path == before


@pytest.mark.usefixtures("user_module")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("user_nets:biuld", "no function 'biuld'; did you mean build?"),
        ("user_nets:number", "returned int, expected a torch.nn.Module"),
        ("user_nets:broken", "user_nets:broken.. failed: KeyError: 'size'"),
        ("user_nets:sized", "missing 1 required .*; it is called without arguments"),
        ("user_broken:build", "no_such_package"),
        ("user_absent:build", "cannot import 'user_absent'"),
        (":build", "cannot import ''"),
    ],
)
def test_users_function_that_fails(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        open_model(name)


def test_torchvision_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ModelError, match="needs the package torchvision"):
        open_model("torchvision:resnet18")


def test_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    models = ModuleType("torchvision.models")
    models.list_models = lambda: ["resnet18"]  # type: ignore[attr-defined]
    models.get_model = lambda name, num_classes=1000: nn.Linear(3, num_classes)  # type: ignore[attr-defined]
    package = ModuleType("torchvision")
    package.models = models  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    model = open_model("torchvision:resnet18", num_classes=5)
    assert isinstance(model, nn.Linear)
    assert model.out_features == 5
    with pytest.raises(ModelError, match="did you mean resnet18"):
        open_model("torchvision:resnet81")
    with pytest.raises(ModelError, match="3 channels"):
        open_model("torchvision:resnet18", in_channels=1)
