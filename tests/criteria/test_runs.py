"""Whole runs by a criterion: the target is met, the cut is proven, a stopped run ends as if it had not been."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from amsc import Result, Settings, Target
from amsc.borrowing import copied
from amsc.cli import main
from amsc.cli.commands import build_parser
from amsc.cli.flags import run_settings
from amsc.cli.parser import parse
from amsc.criteria import Pricing, Scene, channel_prices
from amsc.errors import SettingsError, TargetError
from amsc.measurement import measure
from amsc.report import render
from amsc.structure import Structure
from amsc.structure.costing import predicted_cost
from amsc.training import Removal, Snapshot, Trail, WalkSettings
from jobs.test_compress import StopAt, Stopped, _essence
from small_runs import run_small
from training.small import TASK, same_tensors, shrink, small_data, traced, trained_net

DATA = small_data()
SETTINGS = Settings(
    method="criterion", criterion="l1", finetune_epochs=0.5, path_points=2, reconstruction=32, round_to=1
)
Finished = tuple[dict[str, str], Result]
RUNS = [
    {"criterion": "l1"},
    {"criterion": "hrank", "block_criterion": "cka"},
    {"criterion": "fisher", "block_criterion": "shortgpt"},
]


@pytest.fixture(scope="module")
def dense() -> nn.Module:
    return trained_net(DATA)


@pytest.fixture(scope="module")
def structure(dense: nn.Module) -> Structure:
    return traced(dense, DATA)


def run(dense: nn.Module, choices: dict[str, str], out: Path | None = None, **options: Any) -> Result:
    return run_small(out, model=copied(dense), data=DATA, settings=replace(SETTINGS, **choices), **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=RUNS, ids=lambda choices: choices["criterion"])
def finished(dense: nn.Module, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return request.param, run(dense, request.param, tmp_path_factory.mktemp("criteria") / "whole")


def test_a_criterion_leads_to_a_proven_network_at_the_target(
    dense: nn.Module, structure: Structure, finished: Finished
) -> None:
    choices, result = finished
    record, path = result.record, result.record.path
    assert record.after.macs == measure(result.model, DATA.example_inputs(1)).macs <= 0.6 * record.before.macs
    assert record.after.macs > 0.57 * record.before.macs
    assert record.verification_error < 1e-5
    assert [point.phase for point in path] == ["dense", "depth", "depth", "finetune"]
    assert all(point.repaired for point in path[1:3])
    pricing = Pricing(choices["criterion"], choices.get("block_criterion", ""), "auto", DATA, TASK)
    order = pricing.block_order(dense, structure)
    for point in path[1:3]:
        assert set(point.removed_blocks) == set(order[: len(point.removed_blocks)])
        gone = [set(row.removed_blocks) for row in point.candidates]
        assert all(fewer < more for fewer, more in pairwise(gone))
        assert len(gone) > 1 or not order
    assert "prices of a criterion" in render(record)


def test_the_cheapest_channels_of_each_layer_are_gone(
    dense: nn.Module, structure: Structure, finished: Finished
) -> None:
    choices, result = finished
    record, scene = result.record, Scene(dense, structure, DATA, TASK)
    if record.removed_blocks:  # then prices are those of the network without them
        assert choices.get("block_criterion")
        return
    prices = channel_prices(scene, choices["criterion"])
    for name, gone in record.removed_channels.items():
        order = prices[name].argsort(stable=True)[: len(gone)]
        assert set(gone) == set(order.tolist())
        if choices["criterion"] == "l1":
            assert len(gone) / len(prices[name]) == pytest.approx(0.43, abs=0.13), "the same share of each"


def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(
    dense: nn.Module, finished: Finished, tmp_path: Path
) -> None:
    choices, whole = finished
    with pytest.raises(Stopped):
        run(dense, choices, tmp_path / "run", progress=StopAt(3))
    resumed = run(dense, choices, tmp_path / "run", resume=True)
    assert _essence(resumed.record) == _essence(whole.record)
    assert same_tensors(resumed.model.state_dict(), whole.model.state_dict())


def test_a_target_of_nothing_lost_is_looked_for_by_the_criterion(dense: nn.Module) -> None:
    record = run(dense, {"criterion": "random"}, target=Target.free()).record
    assert record.removed_channels
    assert not record.removed_blocks
    assert len(record.judged_shares) > 1


def test_without_a_block_criterion_channels_alone_must_reach_the_target(dense: nn.Module) -> None:
    with pytest.raises(TargetError, match=r"macs=0\.02 cannot be reached: with all gone that can go \(0 blocks, "):
        run(dense, RUNS[0], target=Target(macs=0.02))


def test_a_criterion_that_cannot_price_the_network_says_so(dense: nn.Module) -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))
    with pytest.raises(SettingsError, match=r"criterion='hrank' cannot price 1 .*keep=\['1'\]"):
        run(flat, {"criterion": "hrank"})


def test_what_misses_a_limit_is_cut_further_by_the_criterion(dense: nn.Module, structure: Structure) -> None:
    pricing = Pricing("l1", "", "uniform", DATA, TASK)
    trail = Trail(dense, structure, DATA, TASK, shrink, WalkSettings(), narrowing=pricing.narrowing)
    cost = int(0.7 * predicted_cost(structure))
    smaller, error = trail.cut_down(Snapshot(Removal(), dense.state_dict()), cost)
    assert error < 1e-5
    assert smaller.removal.channels == pricing.choice(dense, structure).removal(cost).channels


def test_flags_say_the_same_as_settings() -> None:
    typed = "compress resnet20 --method criterion --criterion hrank --block-criterion cka --criterion-spread global"
    settings = run_settings(parse(build_parser(), typed.split())).settings
    assert settings == Settings(method="criterion", criterion="hrank", block_criterion="cka", criterion_spread="global")


def test_a_wrong_name_is_answered(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compress", "digits_resnet", "--data", "digits", "--target", "macs=50%", "--criterion"]
    assert main([*words, "hrang", "--method", "criterion"]) == 2
    assert "hrank" in capsys.readouterr().err
    assert main([*words, "hrank"]) == 2
    assert "--method criterion" in capsys.readouterr().err
