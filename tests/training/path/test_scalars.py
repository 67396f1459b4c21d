"""Trained parameters without an axis: temperatures, and ReZero's factors, which block norms contain."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amsc.penalty import Penalty
from amsc.structure import trace
from amsc.structure.costing import predicted_macs
from amsc.training import OptimizerChoice, ProximalStep, WalkSettings, walk
from training.small import TASK, ListData, shrink


class Branch(nn.Module):
    """x + factor * down(relu(up(x)))."""

    def __init__(self, width: int = 8, inner: int = 12) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.5))
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.factor * self.down(F.relu(self.up(x)))


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks, self.head = nn.Linear(6, 8), nn.ModuleList(Branch() for _ in range(3)), nn.Linear(8, 3)
        self.temperature = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x) * self.temperature


def data() -> ListData:
    chooser = torch.Generator().manual_seed(0)
    return ListData(tuple((torch.randn(16, 6, generator=chooser), torch.arange(16) % 3) for _ in range(4)))


@pytest.mark.parametrize("options", [{}, {"optimizer": OptimizerChoice(0.001, "adamw")}, {"method": "gates"}], ids=str)
def test_a_walk_meets_its_target_and_carries_their_moments(options: dict[str, Any]) -> None:
    model, batches = Scaled(), data()
    structure = trace(model, batches.example_inputs())
    target = predicted_macs(structure) // 2
    settings = WalkSettings(epochs=4, points=4, weights="fisher", **options)
    kwargs: dict[str, Any] = {"stand_in": lambda call: nn.Identity()}
    steps = list(walk(model, structure, batches, TASK, shrink=shrink, target_cost=target, settings=settings, **kwargs))
    assert steps[-1][0].macs <= target
    kind = "exp_avg" if "optimizer" in options else "momentum_buffer"
    assert all(snapshot.moments[kind]["temperature"].shape == () for _, snapshot, _ in steps)
    assert float(steps[-1][1].weights["temperature"]) != 1


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW])
def test_an_empty_block_has_a_factor_of_zero(make: Any) -> None:
    model, ((inputs, target), *_) = Scaled(), data().items
    penalty = Penalty(trace(model, inputs), model)
    assert len(penalty.blocks) == 3
    optimizer = ProximalStep(make(model.parameters(), lr=0.01), penalty, depth_strength=1e6)
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), target).backward()
        optimizer.step()
    assert penalty.zero_blocks().all()
    assert [float(block.get_parameter("factor")) for block in model.blocks] == [0, 0, 0]
