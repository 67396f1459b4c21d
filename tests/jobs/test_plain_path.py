"""The whole job on a network without shortcuts, whose convolutions may go."""

from collections import OrderedDict
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from amsc import Result, Settings, Target, compress, pick
from amsc.errors import SettingsError, VerificationError
from amsc.measurement import count_macs
from amsc.structure import Structure
from amsc.surgery import load, plan_of
from training.small import same_tensors, small_data

DATA = small_data()
SETTINGS = Settings(
    plain=True,
    dense_epochs=2,
    path_epochs=2,
    finetune_epochs=1,
    path_points=4,
    path_learning_rate=0.05,
    depth_rule="share",
)


def plain_net(*, bias: bool = False) -> nn.Sequential:
    """Five convolutions, the last four of which keep the shape of their input."""
    torch.manual_seed(0)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index in range(5):
        layers[f"conv{index}"] = nn.Conv2d(8 if index else 1, 8, 3, padding=1, bias=bias)
        layers[f"norm{index}"], layers[f"relu{index}"] = nn.BatchNorm2d(8), nn.ReLU()
    layers |= {"mean": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "head": nn.Linear(8, 10)}
    return nn.Sequential(layers)


def run(out: Path | None = None, model: nn.Module | None = None, **options: Any) -> Result:
    options = {"target": Target(macs=0.45), "settings": SETTINGS, **options}
    return compress(model or plain_net(), DATA.example_inputs(1), DATA, out=out, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plain") / "run"


@pytest.fixture(scope="module")
def result(folder: Path) -> Result:
    return run(folder)


def test_convolutions_go_then_channels(result: Result) -> None:
    record = result.record
    assert record.blocks_before == 4
    assert record.removed_blocks
    assert record.removed_channels
    assert all(isinstance(result.model.get_submodule(name), nn.Identity) for name in record.removed_blocks)
    assert record.after.macs <= 0.45 * record.before.macs
    assert record.after.macs == count_macs(result.model, DATA.example_inputs(1))
    assert record.verification_error <= 1e-5


def test_it_is_loaded_with_the_dense_constructor(folder: Path, result: Result) -> None:
    again = load(folder / "model", plain_net).eval()
    inputs = DATA.example_inputs(3)
    torch.testing.assert_close(again(inputs), result.model.eval()(inputs))
    plan = plan_of(again)
    assert plan is not None
    assert plan.plain == result.record.removed_blocks


def test_two_runs_give_the_same(result: Result) -> None:
    assert same_tensors(run().model.state_dict(), result.model.state_dict())


def test_other_budgets_come_from_the_same_path(folder: Path, result: Result) -> None:
    for macs in (0.8, 0.6):
        other = pick(folder, plain_net(), DATA.example_inputs(1), DATA, target=Target(macs=macs))
        assert macs - 0.08 < other.record.after.macs / other.record.before.macs <= macs
    with pytest.raises(SettingsError, match=r"the path in .* removed conv"):
        pick(folder, plain_net(), DATA.example_inputs(1), DATA, target=Target(macs=0.6), settings=Settings())


def test_both_methods_and_biases() -> None:
    for options in ({"method": "gates"}, {"optimizer": "adamw", "path_learning_rate": 0.003, "weights": "amsc"}):
        settings = Settings(**{**vars(SETTINGS), **options})
        record = run(model=plain_net(bias=True), settings=settings).record
        assert record.removed_blocks, options
        assert record.after.macs <= 0.45 * record.before.macs


def test_they_stay_unless_asked_for() -> None:
    record = run(settings=Settings(**{**vars(SETTINGS), "plain": False})).record
    assert (record.blocks_before, record.removed_blocks) == (0, ())


def test_a_matching_that_changes_the_function_is_not_trained_with(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: nn.Module, structure: Structure) -> dict[str, float]:
        model.get_parameter("conv1.weight").data.mul_(1.01)
        model.get_parameter("norm1.weight").data.mul_(1.01)
        return {"conv1": 0.5}

    monkeypatch.setattr(import_module("amsc.jobs.stages.dense"), "match_channels", wrong)
    with pytest.raises(VerificationError):
        run()
