"""In inference mode torch hands composite operators over whole: what amsc finds does not depend on that."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from amsc.structure import Structure, trace
from amsc.surgery import cut, plan_cut
from structure.awkward import images
from structure.awkward_more import EVERY, traced


def found(structure: Structure) -> Any:
    """Everything but the reasons."""
    groups = sorted(
        (group.size, group.exact, group.kind, *sorted((m.parameter, m.axis, m.indices) for m in group.members))
        for group in structure.channels
    )
    pins = sorted((pin.parameter, pin.axis, pin.count) for pin in structure.pins)
    return groups, pins, [block.name for block in structure.blocks], sorted(map(repr, structure.costs))


@pytest.mark.parametrize("name", EVERY)
def test_the_same_is_found_in_inference_mode(name: str) -> None:
    wanted = found(traced(name, 0)[2])
    model, inputs = EVERY[name].build(0)
    with torch.inference_mode():
        assert found(trace(model, inputs)) == wanted


class Served(nn.Module):
    """A network whose author wrote its forward for inference alone."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.bn, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 3)
        self.head = nn.Linear(6, 4)

    @torch.inference_mode()
    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.bn(self.a(x)).relu()).relu()
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_forward_for_inference_alone_is_traced(device: str) -> None:
    model = Served().eval().to(device)
    groups = trace(model, images().to(device)).channels
    assert {(group.name, group.size, group.exact) for group in groups} == {("a", 8, True), ("b", 6, True)}


def test_a_forward_for_inference_alone_is_cut() -> None:
    model, inputs = Served().eval(), images()
    structure = trace(model, inputs)
    small = cut(model, plan_cut(structure, channels={"a": [0, 3, 5], "b": [1, 2]}), inputs)
    assert [tuple(p.shape) for p in small.parameters()][:2] == [(5, 3, 3, 3), (5,)]
