"""The whole job on a network whose channels are constants, not zero, when they are zeroed, and whose layers have no
biases at first."""

from pathlib import Path

import torch
from torch import nn

from amsc import Settings, Target, compress
from amsc.structure.costing import predicted_parameters
from amsc.surgery import load
from training.small import small_data

SETTINGS = Settings(
    dense_epochs=1, path_epochs=2, finetune_epochs=0.5, path_points=3, path_learning_rate=0.05, depth_share=0.0
)
DATA = small_data()


def sigmoid_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, bias=False),
        nn.Sigmoid(),
        nn.Conv2d(12, 16, 3, bias=False),
        nn.BatchNorm2d(16),
        nn.Sigmoid(),
        nn.Flatten(),
        nn.LazyLinear(24, bias=False),
        nn.Sigmoid(),
        nn.Linear(24, 10, bias=False),
    )


def built() -> nn.Module:
    model = sigmoid_net()
    model(DATA.example_inputs(1).cpu())
    return model


def test_a_network_of_sigmoids_is_compressed(tmp_path: Path) -> None:
    result = compress(built(), DATA.example_inputs(1), DATA, target=Target(macs=0.5), settings=SETTINGS, out=tmp_path)
    record = result.record
    assert {"0", "2", "6"} <= set(record.removed_channels)
    assert record.after.macs <= 0.5 * record.before.macs
    assert record.after.parameters == result.plan.parameters == predicted_parameters(result.structure)
    assert result.plan.folds == ("2", "6", "8")
    assert record.verification_error <= 1e-5
    x = DATA.example_inputs(4)
    assert torch.equal(load(tmp_path / "model", built).eval()(x), result.model.eval()(x))
