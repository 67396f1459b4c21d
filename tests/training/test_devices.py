"""Training and gates on an accelerator come out as on the CPU; on the CPU these tests compare it with itself."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from amsc.borrowing import borrowed
from amsc.data import Data, open_data
from amsc.penalty import Penalty, find_coordinates
from amsc.structure import trace
from amsc.structure.costing import predicted_macs
from amsc.surgery import stand_in
from amsc.training import (
    GateGradients,
    OptimizerChoice,
    ProximalStep,
    Stretch,
    TrainSettings,
    WalkSettings,
    finetune,
    gate_gradients,
    train_steps,
    walk,
)
from amsc.training.gates.sensitivity import gate_sensitivities
from training.small import TASK, shrink, small_net

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
OPTIMIZERS = {"sgd": 0.05, "adamw": 0.003}


def data_on(device: str) -> Data:
    return open_data("digits", seed=0, batch_size=16, device=device, limit=96)


def close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name].cpu(), tensor, rtol=2e-2, atol=2e-3)


@pytest.fixture(autouse=True)
def _full_precision() -> Any:
    """Convolutions on a GPU compute in a shorter format if they may."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def trained(device: str, kind: str) -> dict[str, Tensor]:
    model, data = small_net().to(device), data_on(device)
    finetune(model, data, TASK, TrainSettings("dense", 0.5, OptimizerChoice(OPTIMIZERS[kind] / 5, kind)))
    return model.state_dict()


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("device", DEVICES)
def test_training_comes_to_the_same_weights(device: str, kind: str) -> None:
    close(trained(device, kind), trained("cpu", kind))


def penalised(device: str, kind: str) -> tuple[Penalty, dict[str, Tensor]]:
    model, data = small_net(), data_on(device)
    penalty = Penalty(trace(model, data_on("cpu").example_inputs(2)), model)
    model.to(device)  # the penalty follows
    make = torch.optim.SGD if kind == "sgd" else torch.optim.AdamW
    options = {"momentum": 0.9} if kind == "sgd" else {}
    optimizer = ProximalStep(make(model.parameters(), lr=OPTIMIZERS[kind] / 5, **options), penalty)
    optimizer.depth_strength, optimizer.width_strength = 0.02, 0.02
    train_steps(model, optimizer, data.batches("train", seed=1), TASK, Stretch("path", 0, 6))
    return penalty, model.state_dict()


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("device", DEVICES)
def test_proximal_steps_come_to_the_same_weights_and_zeros(device: str, kind: str) -> None:
    (penalty, weights), (expected, wanted) = penalised(device, kind), penalised("cpu", kind)
    close(weights, wanted)
    torch.testing.assert_close(penalty.block_norms().cpu(), expected.block_norms(), rtol=2e-2, atol=2e-3)
    assert penalty.leaf_norms().device.type == torch.device(device).type
    agreeing = penalty.zero_channels().cpu() == expected.zero_channels()
    assert float(agreeing.float().mean()) > 0.97


def derivatives(device: str) -> tuple[GateGradients, Tensor]:
    torch.manual_seed(0)
    model, data = small_net().eval(), data_on(device)
    structure = trace(model, data_on("cpu").example_inputs(2))
    model.to(device)
    coordinates = find_coordinates(structure)
    stand_ins: dict[str, nn.Module] = {n: stand_in(structure.block(n).call).to(device) for n in coordinates.blocks}
    found = gate_gradients(model, structure, coordinates, stand_ins, data, TASK, examples=40)
    penalty = Penalty(structure, model)
    with borrowed(model):
        leaves, blocks = gate_sensitivities(model, penalty, data, TASK)
    return found, torch.cat((leaves, blocks)).cpu()


@pytest.mark.parametrize("device", DEVICES)
def test_gates_have_the_same_derivatives(device: str) -> None:
    (found, squares), (expected, wanted) = derivatives(device), derivatives("cpu")
    assert found.is_batched
    assert found.gradients.dtype == torch.float64
    scale = float(expected.gradients.abs().max())
    torch.testing.assert_close(found.gradients, expected.gradients, rtol=1e-2, atol=1e-3 * scale)
    torch.testing.assert_close(squares, wanted, rtol=2e-2, atol=1e-3 * float(wanted.max()))


@pytest.mark.parametrize("options", [{}, {"optimizer": OptimizerChoice(0.003, "adamw")}, {"method": "gates"}], ids=str)
@pytest.mark.parametrize("device", DEVICES)
def test_a_walk_meets_its_target_where_the_network_is(device: str, options: dict[str, Any]) -> None:
    model, data = small_net().to(device), data_on(device)
    structure = trace(model, data.example_inputs(1))
    target = round(0.6 * predicted_macs(structure))
    settings = WalkSettings(
        **{"epochs": 1, "points": 2, "optimizer": OptimizerChoice(0.05), "weights": "fisher", **options}
    )

    def walked() -> list[Any]:
        steps = walk(
            copy.deepcopy(model), structure, data, TASK, shrink=shrink, target_cost=target, settings=settings,
            stand_in=stand_in,
        )  # fmt: skip
        return list(steps)

    first = walked()
    assert 0.98 * target <= first[-1][0].macs <= target
    assert {tensor.device.type for tensor in first[-1][1].weights.values()} == {torch.device(device).type}
    if device == "cpu":
        assert [point for point, _, _ in walked()] == [point for point, _, _ in first]
