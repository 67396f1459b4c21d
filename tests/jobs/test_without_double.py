"""A whole run on a device that has no float64 (MPS), in name: nothing asks it for any."""

from collections.abc import Iterator
from importlib import import_module

import pytest
import torch
from torch import nn

from amsc import Settings, Target, compress, scan, trace
from amsc.data import LoaderData
from amsc.errors import VerificationError
from amsc.structure.costing import predicted_macs
from amsc.surgery import apply_plan, plan_cut, verify
from amsc.surgery.verification import verify_throwaway
from without_double import MPS, mps, on_mps

INPUTS = torch.randn(48, 6, generator=torch.Generator().manual_seed(0))
BATCHES = [(part, (part[:, 0] > 0).long()) for part in INPUTS.split(16)]
SETTINGS = Settings(device="mps", path_epochs=0.3, path_points=1, finetune_epochs=0.3)


def net() -> nn.Module:
    """It knows the answer, in two of its eight units."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 2))
    with torch.no_grad():
        model[0].weight[:2] = 5 * torch.eye(6)[:1] * torch.tensor([[1.0], [-1.0]])
        model[2].weight[:2] = torch.eye(8)[:2]
        model[4].weight[:, :2] = 20 * torch.tensor([[-1.0, 1.0], [1.0, -1.0]])
    return model


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.Generator]:
    """The device's generator. Networks are traced on the CPU: tracing takes the place of the tensors of this one."""
    structure = trace(net(), INPUTS[:1])
    monkeypatch.setattr(import_module("amsc.jobs.preparation"), "trace", lambda model, x: structure)
    with mps() as generator:
        yield generator


def data() -> LoaderData:
    return LoaderData(BATCHES, BATCHES, BATCHES, device="mps")


def test_a_run(device: torch.Generator) -> None:
    model = on_mps(net())
    state = device.get_state()
    result = compress(model, INPUTS[:1].to(MPS), data(), target=Target(macs=0.7), settings=SETTINGS)
    assert {parameter.device for parameter in result.model.parameters()} == {MPS}
    assert predicted_macs(result.structure) <= 0.7 * 128
    assert torch.equal(device.get_state(), state)


def test_a_scan(device: torch.Generator) -> None:
    model = on_mps(net())
    state = device.get_state()
    found = scan(model, INPUTS[:1].to(MPS), data(), settings=SETTINGS, shares=[0.5], evaluate=True)
    assert found.points[-1].macs <= 0.5 * found.points[0].macs
    assert torch.equal(device.get_state(), state)


def test_a_difference_is_not_judged_in_double_where_there_is_none(device: torch.Generator) -> None:
    plan = plan_cut(trace(net(), INPUTS[:1]), channels={"0": [1], "2": [3]})
    assert plan.folds == ("4",)
    model = on_mps(net())
    small = apply_plan(model, plan)
    assert verify(model, small, plan, INPUTS.to(MPS)) < 1e-5
    small[4].bias.data += 1e-2  # type: ignore[index, union-attr, operator]
    with pytest.raises(VerificationError, match="differs from the masked model"):
        verify(model, small, plan, INPUTS.to(MPS))
    with pytest.raises(VerificationError, match="differs from the masked model"):
        verify_throwaway(model, small, plan, INPUTS.to(MPS))
