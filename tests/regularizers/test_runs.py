"""Whole runs under a regularizer: epochs count, the cut is proven, a stopped run ends as if it had not been."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from amsc import Result, Settings, Target
from amsc.borrowing import copied
from amsc.cli import main
from amsc.cli.commands import build_parser
from amsc.cli.flags import run_settings
from amsc.cli.parser import parse
from amsc.errors import SettingsError
from amsc.jobs.pick import pick
from amsc.regularizers import REGULARIZERS, Course, going_of, num_steps, parts_of, step_size_of
from amsc.report import render
from amsc.settings import REGULARIZERS as NAMES
from amsc.structure import select, trace
from amsc.training import OptimizerChoice, Removal
from jobs.test_compress import Stopped, _essence, _StopIn
from random_networks import genes_of, random_network
from small_runs import run_small
from training.small import same_tensors, small_data, trained_net

DATA = small_data()
SETTINGS = Settings(
    method="criterion",
    regularizer="growing",
    path_epochs=2.0,
    finetune_epochs=0.5,
    path_points=1,
    reconstruction=32,
    round_to=1,
)


@pytest.fixture(scope="module")
def dense() -> nn.Module:
    return trained_net(DATA)


def run(dense: nn.Module, out: Path | None = None, regularizer: str = "growing", **options: Any) -> Result:
    settings = options.pop("settings", replace(SETTINGS, regularizer=regularizer))
    return run_small(out, model=copied(dense), data=DATA, settings=settings, **options)


@pytest.fixture(scope="module")
def finished(dense: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("regularizers") / "whole"
    return folder, run(dense, folder)


def test_the_settings_know_the_names_in_the_table() -> None:
    assert tuple(REGULARIZERS) == NAMES


@pytest.mark.parametrize("name", REGULARIZERS)
def test_a_regularizer_leads_to_a_proven_network_at_the_target(dense: nn.Module, name: str) -> None:
    record = run(dense, regularizer=name).record
    assert record.after.macs <= 0.6 * record.before.macs
    assert record.verification_error < 1e-5
    assert [(point.phase, point.epochs) for point in record.path] == [
        ("dense", 0),
        ("regularized", 2),
        ("depth", 2),
        ("finetune", 2.5),
    ]
    assert [curve.phase for curve in record.training] == ["regularize", "finetune"]
    page = render(record)
    assert "trained under the regularizer" in page
    assert f"The regularizer {name} was at work before the path" in page


def test_what_growing_emptied_is_what_goes_and_costs_nothing(finished: tuple[Path, Result]) -> None:
    """Channels near zero can go without reconstruction, which the same channels of the dense network cannot."""
    record = finished[1].record
    _, pulled, cut, _ = record.path
    assert cut.removed_channels
    assert cut.score == pytest.approx(pulled.score, abs=0.03)


@pytest.mark.parametrize("call", [1, 2])
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(
    dense: nn.Module, finished: tuple[Path, Result], tmp_path: Path, call: int
) -> None:
    """In the first epoch under the regularizer, and in the second, when channels have been picked."""
    _, whole = finished
    with pytest.raises(Stopped):
        run(dense, tmp_path / "run", progress=_StopIn("regularize", call))
    resumed = run(dense, tmp_path / "run", resume=True)
    assert _essence(resumed.record) == _essence(whole.record)
    assert same_tensors(resumed.model.state_dict(), whole.model.state_dict())


def test_a_run_that_was_stopped_after_it_does_not_train_under_it_again(
    dense: nn.Module, finished: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Stopped):
        run(dense, tmp_path / "run", progress=_StopIn("finetune", 1))
    monkeypatch.setattr("amsc.jobs.stages.regularized.train_regularized", None)
    assert _essence(run(dense, tmp_path / "run", resume=True).record) == _essence(finished[1].record)


def test_another_budget_is_picked_from_the_network_that_was_regularized(
    dense: nn.Module, finished: tuple[Path, Result]
) -> None:
    folder, whole = finished
    settings = replace(SETTINGS, regularizer="growing", finetune_epochs=0.0)
    found = pick(folder, copied(dense), DATA.example_inputs(1), DATA, target="macs=80%", settings=settings)
    assert found.record.after.macs <= 0.8 * found.record.before.macs
    gone, more = found.record.removed_channels, whole.record.path[2].removed_channels
    shared = [len(set(channels) & set(more.get(name, ()))) / len(channels) for name, channels in gone.items()]
    assert sum(shared) / len(shared) > 0.8, "those that were drawn to zero"


def test_its_own_prices_may_be_replaced(dense: nn.Module) -> None:
    own = run(dense, regularizer="slimming").record.removed_channels
    settings = replace(SETTINGS, regularizer="slimming", criterion="random")
    assert run(dense, settings=settings).record.removed_channels != own


def test_the_strength_that_is_given_is_taken(dense: nn.Module) -> None:
    weak, strong = (
        run(dense, settings=replace(SETTINGS, regularizer="dependency", regularization=strength)).record.path[1]
        for strength in (1e-9, 1.0)
    )
    assert weak.score > strong.score


def test_with_adamw_the_pull_is_beside_its_steps(dense: nn.Module) -> None:
    adamw = {"optimizer": "adamw", "path_learning_rate": 1e-3, "finetune_epochs": 0.0}
    record = run(dense, settings=replace(SETTINGS, **adamw)).record  # type: ignore[arg-type]
    assert record.path[2].removed_channels
    assert record.path[2].score == pytest.approx(record.path[1].score, abs=0.03), "what goes is near zero as well"


def test_every_kind_of_network_can_be_pulled_at() -> None:
    """Whatever the construct: what makes the channels that go is shrunk, and all else that makes channels is not."""
    seen = 0
    for seed in range(12):
        torch.manual_seed(seed)
        network, inputs = random_network(genes_of(seed)).eval(), torch.randn(2, 3, 8, 8)
        structure = select(trace(network, inputs))
        groups = parts_of(network, [group for group in structure.channels if group.removable])
        if not groups:
            continue
        going = going_of(structure, Removal((), {group.name: (0,) for group in groups}), groups)
        before = {name: tensor.detach().clone() for name, tensor in network.named_parameters()}
        REGULARIZERS["growing"].kind(groups, Course(2, 0.1, lambda going=going: going), 1.0).apply(1, 0.1)  # type: ignore[misc]
        REGULARIZERS["dependency"].kind(groups, Course(2, 0.1, lambda going=going: going), 0.0).apply(1, 0.1)  # type: ignore[misc]
        for group in groups:
            for part in group.makers:
                old = before_rows(part, before, network)
                first = part.channels == 0
                torch.testing.assert_close(part.values()[first], old[first] / 1.1, rtol=0.2, atol=1e-7)
                assert bool((part.values()[first].abs() <= old[first].abs()).all())
                seen += 1
    assert seen > 20


def before_rows(part: Any, before: dict[str, torch.Tensor], network: nn.Module) -> torch.Tensor:
    name = next(name for name, parameter in network.named_parameters() if parameter is part.parameter)
    return before[name].movedim(part.axis, 0)[part.positions].reshape(len(part.positions), -1)


def test_all_channels_of_a_block_that_goes_go(dense: nn.Module) -> None:
    structure = trace(dense, DATA.example_inputs(1))
    groups = parts_of(dense, [group for group in structure.channels if group.kind != "stream"])
    block = structure.outer_blocks[0].name
    going = going_of(structure, Removal((block,), {groups[-1].name: (1,)}), groups)
    for group in groups:
        wanted = group.size if group.name.startswith(f"{block}.") else 1 if group is groups[-1] else 0
        assert int(going[group.name].sum()) == wanted


def test_a_course_has_a_step_at_least_and_knows_how_far_one_goes() -> None:
    assert (num_steps(DATA, 2), num_steps(DATA, 0.001)) == (20, 1)
    assert step_size_of(OptimizerChoice(0.01, "sgd", 0.9)) == pytest.approx(0.1)
    assert step_size_of(OptimizerChoice(0.01, "adamw", 0.9)) == 0.01


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"regularizer": "growing"}, r"regularizer='growing' is for method=\"criterion\""),
        ({"regularization": 0.1}, "regularization=0.1 is for"),
        ({"method": "criterion", "regularizer": "growing"}, r"give path_epochs .*walked"),
        ({"method": "criterion", "criterion": "l1", "regularization": 0.1}, "name one, or leave it out"),
        ({"method": "criterion", "regularizer": "slimmin", "path_epochs": 1.0}, "did you mean slimming"),
        ({"method": "criterion", "regularizer": "growing", "path_epochs": 1.0, "regularization": 0.0}, "more than 0"),
    ],
)
def test_settings_that_contradict_are_refused(choices: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Settings(**choices)


def test_targets_that_do_not_say_how_much_goes_are_refused(dense: nn.Module) -> None:
    with pytest.raises(SettingsError, match="with the target free nothing is trained"):
        run(dense, target=Target.free())
    with pytest.raises(SettingsError, match="give a strength"):
        run(dense, target=Target(drop=0.5))


def test_a_drop_is_looked_for_with_a_strength(dense: nn.Module) -> None:
    settings = replace(SETTINGS, regularizer="growing", regularization=0.5, path_points=2, finetune_epochs=0.25)
    record = run(dense, settings=settings, target=Target(drop=0.9)).record
    assert record.after.macs < record.before.macs


def test_flags_say_the_same_as_settings() -> None:
    typed = "compress resnet20 --method criterion --regularizer slimming --regularization 0.001 --path-epochs 4"
    settings = run_settings(parse(build_parser(), typed.split())).settings
    assert settings == Settings(method="criterion", regularizer="slimming", regularization=0.001, path_epochs=4.0)


def test_a_wrong_name_is_answered(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compress", "digits_resnet", "--data", "digits", "--target", "macs=50%", "--regularizer", "growin"]
    assert main([*words, "--method", "criterion"]) == 2
    assert "growing" in capsys.readouterr().err
