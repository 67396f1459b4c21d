"""What frozen parameters make or read is kept."""

import torch
from torch import nn

from amsc.models import open_model
from amsc.structure import trace, without_frozen
from amsc.training.steps.optimizers import OptimizerChoice, make_optimizer


def test_groups_and_blocks_with_a_frozen_parameter_stay() -> None:
    model = open_model("digits_resnet")
    structure = trace(model, torch.randn(2, 1, 8, 8))
    assert without_frozen(structure, model) == structure
    group = next(g for g in structure.channels if g.exact and g.kind != "stream")
    conv = next(m.parameter for m in group.members if m.role == "out")
    model.get_parameter(conv).requires_grad_(False)
    left = without_frozen(structure, model)
    assert not left.group(group.name).exact
    assert left.group(group.name).reason == f"{conv} is frozen"
    frozen_blocks = {b.name for b in structure.blocks if conv in b.parameters}
    assert {b.name for b in structure.blocks} - {b.name for b in left.blocks} == frozen_blocks
    model.requires_grad_(False)
    nothing = without_frozen(structure, model)
    assert not nothing.blocks
    assert not any(g.exact for g in nothing.channels)


def test_a_layer_that_only_reads_is_frozen_too() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    structure = trace(model, torch.randn(2, 4))
    model[2].requires_grad_(False)
    left = without_frozen(structure, model)
    assert not any(g.exact for g in left.channels)
    assert make_optimizer(model, OptimizerChoice(0.1))
