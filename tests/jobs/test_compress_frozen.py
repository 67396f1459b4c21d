"""Frozen parameters in a run: what is frozen comes out as it went in, and what cannot be done is said."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from amsc import Target, scan
from amsc.errors import ModelError, TargetError
from small_runs import DATA, SETTINGS, run_small
from training.small import small_net

SHORT = replace(SETTINGS, path_epochs=1, finetune_epochs=1, path_points=2)


def frozen(*names: str) -> nn.Module:
    model = small_net()
    for name in names:
        model.get_submodule(name).requires_grad_(False)
    return model


def test_frozen_layers_come_out_as_they_went_in() -> None:
    model = frozen("conv1", "bn1", "layer1.0")
    small = run_small(model=model, settings=SHORT, target=Target(macs=0.75)).model
    kept = {name: p for name, p in model.named_parameters() if not p.requires_grad}
    assert len(kept) > 4
    assert all(torch.equal(small.get_parameter(name), p) for name, p in kept.items())
    assert not any(small.get_parameter(name).requires_grad for name in kept)


def test_gates_cut_frozen_layers_too() -> None:
    settings = replace(SHORT, method="gates", depth_share=0.0)
    model = frozen("conv1", "bn1", "layer1", "layer2", "layer3")
    result = run_small(model=model, settings=settings)
    assert result.record.removed_channels


def test_where_nothing_is_left_the_frozen_parameters_are_named() -> None:
    with pytest.raises(TargetError, match=r'39 parameters .*conv1\.weight.*keep=.*method="gates"'):
        run_small(model=frozen("conv1", "bn1", "layer1", "layer2", "layer3"), settings=SHORT)


def test_a_wholly_frozen_network_is_refused_but_can_be_scanned() -> None:
    model = small_net().requires_grad_(False)
    with pytest.raises(ModelError, match="all parameters of CifarResNet are frozen"):
        run_small(model=model, settings=SHORT)
    assert scan(model, DATA.example_inputs(1), DATA, examples=32).points
