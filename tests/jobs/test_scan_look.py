"""What a scan sees of the networks that it proposes: as they are cut, and reconstructed."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import amsc
from amsc.data import Data
from amsc.errors import DataError, VerificationError
from amsc.jobs import scan_look
from amsc.jobs.scan import Scan, scan
from amsc.jobs.scan_look import LossCheck
from amsc.records import ScanPoint
from amsc.tasks import Classification
from amsc.training import evaluate, mean_loss
from jobs.test_scan import resnet
from training.small import ListData


def test_looking_at_the_points() -> None:
    model, data = resnet()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = scan(model, data.example_inputs(1), data, shares=[0.7, 0.4], evaluate=True, latency=True)
    dense = found.points[0]
    assert dense.score is not None
    assert dense.score > 0.2, "the network was trained"
    for point in found.points:
        assert point.score is not None
        assert point.score_reestimated is not None
        assert point.latency_seconds is not None
        assert point.latency_seconds > 0
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_each_network_is_reconstructed_and_looked_at() -> None:
    model, data = resnet()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings, inputs = amsc.Settings(reconstruction=96, seed=3), data.example_inputs(1)
    found = scan(model, inputs, data, shares=[0.7, 0.4], dimensions="width", settings=settings, evaluate=True)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    dense, *proposed = found.points
    assert (dense.seen_increase_reconstructed, dense.repaired) == (0.0, None)
    assert dense.score_reconstructed == dense.score
    for point in proposed:
        plan = amsc.plan_cut(found.structure, channels=point.removed_channels, blocks=point.removed_blocks)
        small = amsc.reconstruct(amsc.cut(model, plan, inputs), model, data, examples=96, seed=3).model
        assert point.score_reconstructed == evaluate(small, data, "validation", Classification()).score
        assert point.score is not None
        assert point.score_reconstructed > point.score
        assert point.seen_increase is not None
        assert point.seen_increase_reconstructed is not None
        assert point.seen_increase_reconstructed < point.seen_increase
        check = LossCheck.of(model, found.structure, data, Classification(), can_split=found.record.is_batched)
        assert point.seen_increase_reconstructed == check.increase(small)
        assert point.repaired is not None
        assert point.repaired.examples == 96
        assert any(layer.ridge is not None for layer in point.repaired.layers)
    assert "from 96 training examples without their labels" in str(found)


def test_nothing_is_reconstructed_where_that_is_off() -> None:
    model, data = resnet()
    settings = amsc.Settings(reconstruction=0)
    found = scan(model, data.example_inputs(1), data, shares=[0.5], settings=settings, evaluate=True)
    for point in found.points:
        assert (point.seen_increase_reconstructed, point.score_reconstructed, point.repaired) == (None, None, None)
        assert point.score is not None
    assert "reconstructed" not in str(found)
    assert "reconstructed" not in str(scan(model, data.example_inputs(1), data, shares=[0.5])), "nobody asked"


def test_the_loss_is_reconstructed_without_scores_where_that_is_asked_for() -> None:
    model, data = resnet()
    settings = amsc.Settings(reconstruction=64)
    found = scan(model, data.example_inputs(1), data, shares=[0.5], settings=settings, reconstruct=True)
    point = found.points[-1]
    assert (point.score, point.score_reconstructed) == (None, None)
    assert point.seen_increase is not None
    assert point.seen_increase_reconstructed is not None
    assert point.seen_increase_reconstructed < point.seen_increase


def test_why_a_network_is_not_reconstructed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = resnet()
    settings, inputs = amsc.Settings(reconstruction=64), data.example_inputs(1)

    def look() -> Scan:
        return scan(model, inputs, data, shares=[0.5], settings=settings, reconstruct=True)

    with monkeypatch.context() as patched:
        patched.setattr(scan_look, "cut_with_error", refusing(VerificationError("outputs differ")))
        found = look()
        assert found.points[-1].not_reconstructed == "it cannot be cut: outputs differ"
        assert found.points[-1].seen_increase_reconstructed is None
        assert "not reconstructed: 50% (it cannot be cut: outputs differ)" in str(found)
        with pytest.raises(VerificationError, match="outputs differ"):
            scan(model, inputs, data, shares=[0.5], settings=settings, evaluate=True)
    with monkeypatch.context() as patched:
        patched.setattr(scan_look, "reconstruct", refusing(DataError("too few examples")))
        assert "not reconstructed: 50% (too few examples)" in str(look())
    frozen = copy.deepcopy(model).requires_grad_(False)
    found = scan(frozen, inputs, data, shares=[0.5], settings=settings, reconstruct=True)
    assert found.points[-1].repaired is not None
    assert "not reconstructed: 50% (" in str(found)
    assert "frozen" in str(found)


def refusing(error: Exception) -> Callable[..., Any]:
    def refuse(*args: Any, **options: Any) -> Any:
        raise error

    return refuse


def test_a_network_whose_loss_has_no_slope_is_not_said_to_lose_nothing() -> None:
    model, data = resnet()
    model.eval()
    with torch.no_grad():
        images = torch.cat([inputs for inputs, _ in data.batches("train")])
        first, second = model(images).topk(2).values.unbind(1)
        images = images[(first - second).topk(80).indices]  # which it is sure of
        for parameter in list(model.parameters())[-2:]:
            parameter *= 300  # so that nothing is left of their loss
        fitted = ListData(((images, model(images).argmax(1)),), num_classes=10)
        found = scan(model, images[:1], fitted, evaluate=True)
        losses = {point.share: loss_without(model, found, point, fitted) for point in found.points}
    assert all(point.predicted_increase < 1e-3 for point in found.points)
    ruined = [point for point in found.points if point.score is not None and point.score < 0.7]
    assert len(ruined) > 3
    assert all(point.is_far_off and not point.is_predicted for point in ruined)
    assert not found.points[0].is_far_off
    for point in found.points:
        assert point.seen_increase == pytest.approx(losses[point.share] - losses[1.0], rel=0.5, abs=1.0)
    assert "far off" in str(found)


def loss_without(model: nn.Module, found: Scan, point: ScanPoint, data: Data) -> float:
    removal = {"channels": point.removed_channels, "blocks": point.removed_blocks}
    small = amsc.cut(model, amsc.plan_cut(found.structure, **removal)) if point.share < 1 else model
    return mean_loss(small, data, Classification())
