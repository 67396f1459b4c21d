"""A scan end to end: every point can be cut, costs what it says, and does what was asked for."""

import errno
import itertools
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import amsc
from amsc.data import Data
from amsc.errors import DataError, RunFolderError, SettingsError, TargetError
from amsc.jobs.scan import SHARES, Scan, scan
from amsc.measurement import count_macs
from amsc.models import open_model
from amsc.records import ScanRecord, from_json, to_json
from amsc.report import render_scan
from amsc.structure.costing import predicted_macs, predicted_parameters
from amsc.structure.cutting import after_removal
from amsc.tasks import Classification
from amsc.training import evaluate, gate_derivatives
from amsc.training.gates.gradients import GateGradients
from blocks_nets import Decoder, rows
from penalty.nets import randomized
from training.small import ListData, small_data, trained_net


class Plain(nn.Module):
    """Convolutions without normalisation, then a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 12, 3), nn.Conv2d(12, 16, 3)
        self.fc, self.head = nn.Linear(64, 24), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c(self.b(self.a(x).relu()).relu()).relu()
        return self.head(self.fc(x.flatten(1)).relu())


class Rows(Decoder):
    """A small transformer that sorts rows into four classes."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mean(1)


class Squares:
    """A regression."""

    name, higher_is_better = "squared error", False

    def loss(self, output: Any, target: Tensor) -> Tensor:
        return F.mse_loss(output.squeeze(1), target)

    def per_example(self, output: Any, target: Tensor) -> Tensor:
        return (output.squeeze(1) - target).square()


def resnet() -> tuple[nn.Module, Data]:
    data = small_data()
    return trained_net(data), data


def plain() -> tuple[nn.Module, Data]:
    return Plain(), small_data()


def transformer() -> tuple[nn.Module, Data]:
    model = randomized(Rows())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 0.3
    return model, ListData(tuple((rows(8) + i, torch.arange(8) % 4) for i in range(4)))


def densenet() -> tuple[nn.Module, Data]:
    data = ListData(((torch.randn(6, 3, 32, 32), torch.arange(6)),), num_classes=10)
    return open_model("densenet40"), data


NETWORKS = {"resnet": resnet, "plain": plain, "transformer": transformer}


@pytest.fixture(scope="module", params=NETWORKS)
def scanned(request: pytest.FixtureRequest) -> tuple[nn.Module, Data, Scan]:
    torch.manual_seed(0)
    model, data = NETWORKS[request.param]()
    return model, data, scan(model, data.example_inputs(1), data, examples=64)


def check(model: nn.Module, data: Data, found: Scan, removal: Any) -> nn.Module:
    """Cut and verify; costs are as predicted, no group is emptied, nothing inexact and no stream goes."""
    structure = found.structure
    small = amsc.cut(model, amsc.plan_cut(structure, **removal), data.example_inputs(1))
    assert count_macs(small, data.example_inputs(1)) == predicted_macs(structure, **removal)
    assert sum(p.numel() for p in small.parameters()) == predicted_parameters(structure, **removal)
    for name, indices in removal["channels"].items():
        group = structure.group(name)
        assert 0 < len(indices) < group.size
        assert group.exact
        assert group.kind != "stream"
    return small


def test_every_point_can_be_cut_and_costs_what_it_says(scanned: tuple[nn.Module, Data, Scan]) -> None:
    model, data, found = scanned
    dense = found.points[0]
    assert (dense.share, dense.predicted_increase) == (1.0, 0.0)
    assert dense.macs == count_macs(model, data.example_inputs(1))
    assert len(found.points) > 2
    for point in found.points[1:]:
        removal = {"channels": point.removed_channels, "blocks": point.removed_blocks}
        check(model, data, found, removal)
        assert point.macs == predicted_macs(found.structure, **removal) <= point.share * dense.macs
        assert point.parameters == predicted_parameters(found.structure, **removal)
        small = after_removal(found.structure, **removal)
        assert point.blocks_left == len(small.outer_blocks)


def test_the_frontier_is_monotone(scanned: tuple[nn.Module, Data, Scan]) -> None:
    points = scanned[2].points[1:]
    for before, after in itertools.pairwise(points):
        assert after.macs <= before.macs
        is_predicted = before.is_predicted and after.is_predicted
        assert after.predicted_increase >= before.predicted_increase or not is_predicted
        assert min(before.predicted_increase, after.predicted_increase) >= 0


def test_each_share_has_a_point_or_is_out_of_reach(scanned: tuple[nn.Module, Data, Scan]) -> None:
    record = scanned[2].record
    assert sorted([*(point.share for point in record.points[1:]), *record.out_of_reach]) == sorted(SHARES)
    model, data = resnet()
    found = scan(model, data.example_inputs(1), data, dimensions="depth", shares=[0.9, 0.89, 0.02], latency=True)
    high, low = found.points[1:]
    assert (high.share, low.share) == (0.9, 0.89)
    assert replace(high, share=0.89) == low, "one network, timed once"
    assert found.record.out_of_reach == (0.02,)
    with pytest.raises(TargetError):
        found.removal(macs=found.record.lowest_share - 0.001)
    assert "out of reach: macs=0.02" in str(found)
    assert "one network for 90%, 89%" in str(found)


def test_a_slope_that_promises_a_lower_loss_is_beyond_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module("amsc.jobs.scan")

    def sloping(*args: Any, **options: Any) -> GateGradients:
        found = gate_derivatives(*args, **options)
        return replace(found, gradients=0.01 + found.gradients * 1e-6)  # closing any gate would lower every loss

    monkeypatch.setattr(module, "gate_derivatives", sloping)
    model, data = resnet()
    found = scan(model, data.example_inputs(1), data, shares=[0.8, 0.4])
    assert all(point.is_beyond_model and point.predicted_increase == 0 for point in found.points[1:])
    assert found.points[1].macs > found.points[2].macs, "a prediction that is none beats nothing"
    assert str(found).count("beyond the model") == 3


def test_a_removal_meets_any_share(scanned: tuple[nn.Module, Data, Scan]) -> None:
    model, data, found = scanned
    dense = predicted_macs(found.structure)
    for share in (0.83, 0.5, 0.37):
        removal = found.removal(macs=share)
        check(model, data, found, removal)
        left = predicted_macs(found.structure, **removal)
        assert 0.9 * share * dense < left <= share * dense


def test_a_plan_needs_only_the_user_s_own_structure(scanned: tuple[nn.Module, Data, Scan]) -> None:
    model, data, found = scanned
    structure = amsc.trace(model, data.example_inputs(1))
    small = amsc.cut(model, amsc.plan_cut(structure, **found.removal(macs=0.5)))
    assert small(data.example_inputs(3)).shape == model(data.example_inputs(3)).shape


def test_depth_width_and_both() -> None:
    model, data = resnet()
    inputs = data.example_inputs(1)
    removals = {d: scan(model, inputs, data, dimensions=d).removal(macs=0.6) for d in ("both", "depth", "width")}
    assert not removals["width"]["blocks"]
    assert removals["width"]["channels"]
    assert removals["depth"]["blocks"]
    assert not removals["depth"]["channels"]
    assert removals["both"]["blocks"]
    assert removals["both"]["channels"]
    settings = amsc.Settings(depth_share=0.0)
    assert scan(model, inputs, data, settings=settings).removal(macs=0.6) == removals["width"]


def test_the_currency_and_the_examples_matter_and_nothing_else_does() -> None:
    model, data = resnet()
    inputs = data.example_inputs(1)
    first = scan(model, inputs, data).removal(macs=0.5)
    torch.manual_seed(5)
    assert scan(model.train(), inputs, data).removal(macs=0.5) == first
    assert scan(model, inputs, data, settings=amsc.Settings(currency="params")).removal(macs=0.5) != first


def test_channels_have_their_prices_after_recovery_where_there_is_one() -> None:
    model, data = resnet()
    inputs = data.example_inputs(1)
    every = [
        scan(model, inputs, data, settings=amsc.Settings(**settings), shares=[0.5])
        for settings in ({}, {"prices": "fisher"}, {"reconstruction": 0})
    ]
    obs, fisher, none = (found.removal(macs=0.5) for found in every)
    assert [found.record.prices for found in every] == ["obs", "fisher", "fisher"]
    assert obs["channels"] != fisher["channels"]
    assert none == fisher
    assert obs["blocks"] == fisher["blocks"], "blocks have theirs before it"
    assert ["once amsc.reconstruct" in str(found) for found in every] == [True, False, False]


def test_a_channel_that_another_can_do_the_work_of_goes_first() -> None:
    """It does as much for the loss as its twin, which is why its gate alone says that it is dear."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 1)).eval()
    with torch.no_grad():
        model[0].weight[1], model[0].bias[1] = model[0].weight[0], model[0].bias[0]
        model[2].weight[:] = torch.tensor([2.0, 2.0, 1.0, -1.0, 1.0, -1.0])
    x = torch.randn(400, 8)
    data = ListData(tuple((part, model(part)[:, 0].detach() + 0.1 * torch.randn(len(part))) for part in x.split(50)))
    gone = {}
    for prices in ("obs", "fisher"):
        found = scan(model, x[:1], data, task=Squares(), settings=amsc.Settings(prices=prices), shares=[0.84])
        (gone[prices],) = found.removal(macs=0.84)["channels"].values()
    assert len(gone["obs"]) == 1
    assert set(gone["obs"]) < {0, 1}
    assert not {0, 1} & set(gone["fisher"])


def test_limits_are_respected() -> None:
    model, data = resnet()
    settings = amsc.Settings(keep=("layer3.0",), round_to=4, min_channels=8)
    found = scan(model, data.example_inputs(1), data, settings=settings, dimensions="width")
    removal = found.removal(macs=0.8)
    check(model, data, found, removal)
    assert "layer3.0.conv1" not in removal["channels"]
    for name, indices in removal["channels"].items():
        left = found.structure.group(name).size - len(indices)
        assert left % 4 == 0
        assert left >= 8


def test_widths_are_rounded_unless_that_is_asked_for() -> None:
    model, data = resnet()
    left = {}
    for way in ("auto", 1):
        settings = None if way == "auto" else amsc.Settings(round_to=1)
        found = scan(model, data.example_inputs(1), data, settings=settings, dimensions="width")
        removal = found.removal(macs=0.6)
        check(model, data, found, removal)
        left[way] = [found.structure.group(name).size - len(gone) for name, gone in removal["channels"].items()]
    assert sum(number not in {1, 2, 3, 4, 6, *range(8, 64, 4)} for number in left["auto"]) <= 1, left
    assert any(number % 4 for number in left[1]), left


def test_a_scan_beats_the_worst_choice() -> None:
    """What it keeps is worth more than what it would remove: the other way round the network knows nothing."""
    model, data = resnet()
    found = scan(model, data.example_inputs(1), data, shares=[0.8], dimensions="width", evaluate=True)
    point = found.points[1]
    worst = {
        name: tuple(i for i in range(found.structure.group(name).size) if i not in gone)[: len(gone)]
        for name, gone in point.removed_channels.items()
    }
    assert point.score is not None
    small = amsc.cut(model, amsc.plan_cut(found.structure, channels={k: v for k, v in worst.items() if v}))
    assert point.score > evaluate(small, data, "validation", Classification()).score


def test_dense_layers_go_whole() -> None:
    model, data = densenet()
    settings = amsc.Settings(prices="fisher")  # its layers read up to 4,104 numbers, whose moments take long to invert
    found = scan(model, data.example_inputs(1), data, examples=6, shares=[0.5], settings=settings)
    removal = found.removal(macs=0.5)
    assert removal["blocks"]
    check(model, data, found, removal)


def test_any_loss() -> None:
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
    x = torch.randn(40, 4)
    data = ListData(((x, x[:, 0]),))
    found = scan(model, x[:1], data, task=Squares(), shares=[0.5], evaluate=True)
    assert found.record.score_name == "squared error"
    assert found.points[-1].score is not None
    check(model, data, found, found.removal(macs=0.5))


def test_the_record_saves_to_json_and_prints() -> None:
    model, data = resnet()
    found = scan(model, data.example_inputs(1), data, shares=[0.7, 0.4], model_name="mine")
    assert from_json(ScanRecord, to_json(found.record)) == found.record
    lines = str(found).splitlines()
    assert lines[0].startswith("mine on digits")
    assert len(lines) == 4 + len(found.points)
    assert "█" in lines[-3]
    assert repr(found) == f"Scan({found.in_a_line()})"
    assert "mine on digits, 3 points down to" in repr(found)
    assert from_json(ScanRecord, found.to_json()) == found.record
    assert not found.record.out_of_reach


@pytest.mark.parametrize("share", [0.0, 1.0, 50, -0.1, 2000, "20M"])
def test_a_share_outside_of_the_range_is_refused(share: Any) -> None:
    words = "above 0 % and below 100 %|for 50 percent write|expected a share of"
    model, data = resnet()
    with pytest.raises(TargetError, match=words):
        scan(model, data.example_inputs(1), data, shares=[share])
    found = scan(model, data.example_inputs(1), data, shares=[0.5])
    with pytest.raises(TargetError, match=words):
        found.removal(macs=share)


def test_a_share_out_of_reach_is_refused_with_the_lowest() -> None:
    model, data = resnet()
    found = scan(model, data.example_inputs(1), data, dimensions="depth")
    with pytest.raises(TargetError, match="blocks alone; the lowest reachable share is macs=") as failure:
        found.removal(macs=0.01)
    lowest = float(str(failure.value).rsplit("macs=", 1)[1].rstrip("%")) / 100
    assert predicted_macs(found.structure, **found.removal(macs=lowest)) <= lowest * predicted_macs(found.structure)
    with pytest.raises(TargetError, match="lowest reachable"):
        scan(model, data.example_inputs(1), data, dimensions="depth", shares=[0.01])


def test_a_network_with_nothing_to_remove_is_refused() -> None:
    data = ListData(((torch.randn(8, 4), torch.arange(8) % 3),))
    with pytest.raises(TargetError, match="nothing in this network can be removed"):
        scan(nn.Linear(4, 3), torch.randn(1, 4), data)


def test_all_kept_is_nothing_to_remove() -> None:
    model, data = resnet()
    with pytest.raises(TargetError, match="nothing in this network can be removed"):
        scan(model, data.example_inputs(1), data, settings=amsc.Settings(keep=("*",)))


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"examples": 0}, SettingsError, "examples: expected a whole number"),
    ({"examples": 2.5}, SettingsError, "examples: expected a whole number"),
    ({"dimensions": "height"}, SettingsError, "dimensions: expected one of both, depth, width"),
    ({"power": -1}, SettingsError, "power: expected a number from 0 to 4"),
    ({"shares": []}, SettingsError, "at least one share"),
    ({"settings": amsc.Settings(device="cuda")}, SettingsError, "the model is on cpu"),
]


@pytest.mark.parametrize(("arguments", "error", "words"), BAD)
def test_wrong_arguments_are_named(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    model, data = plain()
    with pytest.raises(error, match=words):
        scan(model, data.example_inputs(1), data, **arguments)


def test_no_data_is_refused() -> None:
    model = Plain()
    with pytest.raises(DataError, match="the train split of list is empty"):
        scan(model, torch.randn(1, 1, 8, 8), ListData(()))
    make: Callable[[], Any] = lambda: scan(model, torch.randn(1, 1, 8, 8), None)  # type: ignore[arg-type] # noqa: E731
    with pytest.raises(DataError, match=r"an object with the methods of amsc\.data\.Data, NoneType is not"):
        make()


def test_a_report_is_written_whole_or_not_at_all(
    scanned: tuple[nn.Module, Data, Scan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, found = scanned
    found.report(tmp_path / "scan.html")
    text = (tmp_path / "scan.html").read_text(encoding="utf-8")
    assert text == render_scan(found.record)

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(RunFolderError, match="No space left"):
        found.report(tmp_path / "scan.html")
    assert [path.read_text(encoding="utf-8") for path in tmp_path.iterdir()] == [text]
