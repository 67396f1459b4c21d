"""The path of a network of dense layers: these go first, with their channels, then channels of the others."""

import pytest
import torch
from torch import nn

from amsc.measurement import count_macs
from amsc.models.densenet import CifarDenseNet
from amsc.structure import Structure
from amsc.structure.costing import predicted_macs
from amsc.training import (
    OptimizerChoice,
    Removal,
    Shrunk,
    TrainSettings,
    WalkSettings,
    finetune,
    reestimate_batchnorm,
    walk,
)
from training.small import TASK, shrink, small_data, traced

DATA = small_data()
SETTINGS = WalkSettings(epochs=4, points=4, optimizer=OptimizerChoice(0.05), depth_rule="share")


@pytest.fixture(scope="module")
def dense() -> nn.Module:
    torch.manual_seed(0)
    net = CifarDenseNet(3, growth=6, num_classes=10, in_channels=1)
    finetune(net, DATA, TASK, TrainSettings("dense", 3, OptimizerChoice(0.1)))
    reestimate_batchnorm(net, DATA)
    return net


def test_layers_go_with_their_channels_and_the_budget_is_met(dense: nn.Module) -> None:
    structure = traced(dense, DATA)
    assert [block.kind for block in structure.blocks] == ["dense"] * 9
    differences: list[float] = []
    models: list[nn.Module] = []

    def watched(model: nn.Module, structure: Structure, removal: Removal) -> Shrunk:
        shrunk = shrink(model, structure, removal)
        models.append(shrunk.model)
        if model is not dense:
            outputs = [net.eval()(DATA.example_inputs(16)).detach() for net in (model, shrunk.model)]
            differences.append(float((outputs[0] - outputs[1]).abs().max() / outputs[0].abs().max()))
        return shrunk

    target = int(0.4 * predicted_macs(structure))
    points = [
        point
        for point, _, _ in walk(dense, structure, DATA, TASK, shrink=watched, target_cost=target, settings=SETTINGS)
    ]
    assert [point.phase for point in points] == ["depth", "depth", "width", "width"]
    last = points[-1]
    assert last.removed_blocks
    assert last.removed_channels
    assert last.blocks_left == 9 - len(last.removed_blocks)
    assert 0.99 * target <= last.macs <= target
    assert last.macs == predicted_macs(structure, last.removed_channels, last.removed_blocks)
    assert count_macs(models[-1], DATA.example_inputs(1)) == last.macs
    assert all(difference < 1e-5 for difference in differences[:-1]), "before the end what is cut is zero"
