"""An ordinary training step never waits for the device; looks do, as often as is said where they are made."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amsc.penalty import Penalty, find_coordinates
from amsc.structure import trace
from amsc.structure.costing import predicted_cost
from amsc.training import ProximalStep, Stretch, train_steps
from amsc.training.gates.runs import GateRuns
from amsc.training.path.piece import Piece, Position
from amsc.training.path.strength import CostPlan, StrengthControl
from amsc.training.steps.loop import LOSS_CHECK_STEPS
from training.small import small_net
from training.waits import Waits

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=1e-4),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
}


class Task:
    """Classification, which on a CPU would look at the labels as well."""

    name, higher_is_better = "accuracy", True

    def loss(self, output: Any, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target)

    def per_example(self, output: Any, target: Tensor) -> Tensor:
        return (output.argmax(1) == target).float()


class Mixed(nn.Module):
    """A block with a factor of its own, a plain convolution, and channels of which only some are in a leaf."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.scale = small_net(), nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) * self.scale


def batches(device: str, count: int) -> list[tuple[Tensor, Tensor]]:
    return [(torch.randn(4, 1, 8, 8, device=device), torch.arange(4, device=device)) for _ in range(count)]


def setup(kind: str, device: str) -> tuple[nn.Module, ProximalStep]:
    model = Mixed().to(device)
    penalty = Penalty(trace(model, batches(device, 1)[0][0]), model)
    optimizer = ProximalStep(OPTIMIZERS[kind](model.parameters()), penalty, depth_strength=0.01, width_strength=0.01)
    take(model, optimizer, batches(device, 1))  # in the first step the optimiser makes its state
    return model, optimizer


def take(model: nn.Module, optimizer: ProximalStep, data: list[tuple[Tensor, Tensor]], **hooks: Any) -> None:
    train_steps(model, optimizer, iter(data), Task(), Stretch("path", 0, len(data)), **hooks)


def counts_of_steps(optimizer: ProximalStep) -> list[Tensor]:
    """Adam has them on the CPU whatever the device is."""
    return [state["step"] for state in optimizer.state.values() if "step" in state]


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_steps_wait_for_nothing_but_the_losses_every_twenty(kind: str) -> None:
    model, optimizer = setup(kind, "cpu")
    with Waits(counts_of_steps(optimizer)) as waits:
        take(model, optimizer, batches("cpu", LOSS_CHECK_STEPS + 2))
    assert len(waits.found) == 2, waits.found
    assert all(one.startswith("tolist at loop.py") for one in waits.found)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_steps_wait_for_nothing_on_a_gpu(kind: str) -> None:
    model, optimizer = setup(kind, "cuda")
    data = batches("cuda", 3)
    before = torch.cuda.get_sync_debug_mode()
    inside: list[int] = []

    def strict(step: int) -> None:
        torch.cuda.set_sync_debug_mode("error")
        inside.append(step)

    try:
        take(model, optimizer, data, before=strict, after=lambda step: torch.cuda.set_sync_debug_mode(before))
    finally:
        torch.cuda.set_sync_debug_mode(before)
    assert inside == [0, 1, 2]


@pytest.mark.parametrize("phase", ["depth", "width"])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_steering_waits_once_for_each_look(phase: str, kind: str) -> None:
    """A phase of 240 steps is looked at every fourth step; in the settling part zeros are counted without waiting."""
    model, optimizer = setup(kind, "cpu")
    structure = trace(model, batches("cpu", 1)[0][0])
    cost = predicted_cost(structure)
    position = Position(CostPlan(cost, cost // 2, 240), 0, 16)
    piece = Piece(phase, model, structure, optimizer, position, StrengthControl(), held=0.0)
    costs = [piece.penalty.leaf_costs, piece.penalty.block_costs]
    with Waits([*counts_of_steps(optimizer), *costs]) as waits:
        take(model, optimizer, batches("cpu", 16), before=piece.before, after=piece.after)
    looks = [one for one in waits.found if one.startswith("cpu at look.py")]
    assert len(looks) == 3 + (phase == "depth")  # at 0, 4, 8; a depth piece once more as it begins to settle
    assert len(waits.found) == len(looks) + 1, waits.found


def test_gates_of_many_examples_wait_once() -> None:
    model, (batch,) = small_net().eval(), batches("cpu", 1)
    structure = trace(model, batch[0])
    coordinates = find_coordinates(structure)
    stand_ins = {name: nn.Identity() for name in coordinates.blocks}
    runs = GateRuns(model, structure, coordinates, stand_ins, Task(), batch)
    assert runs.way == "together"
    with Waits() as waits:
        (rows,) = runs.rows(*batch, 4)
    assert rows.shape == (4, len(coordinates.blocks) + len(coordinates.channels))
    assert len(waits.found) == 1, waits.found
    assert waits.found[0].startswith("cpu at hooks.py")


def test_the_finder_finds() -> None:
    x = torch.randn(6)
    with Waits() as waits:
        x[x > 0] = 1.0
        x.where(x > 0, 0.0).sum().sqrt()
        float(x.sum())
        seen = x.cpu().sum()
        float(seen)
        torch.equal(x, x)
        x.masked_select(x > 0)
        bool(x.any())
    kinds = [one.split()[0] for one in waits.found]
    assert kinds == ["index_put_", "_local_scalar_dense", "cpu", "equal", "masked_select", "_local_scalar_dense"], kinds
