"""Weights by sensitivity: gates' derivatives, and the order in which groups are emptied."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amsc.models import open_model
from amsc.penalty import Penalty, emptying_times, gates_from_gradients, reweighted, sensitivity_weights
from amsc.structure import trace


def network() -> tuple[nn.Module, Penalty, Tensor]:
    model, inputs = open_model("digits_resnet").eval(), torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
    return model, Penalty(trace(model, inputs), model, currency="macs"), inputs


def loss_of(model: nn.Module, inputs: Tensor) -> Tensor:
    return F.cross_entropy(model(inputs), torch.arange(4))


def scaled(model: nn.Module, names: list[tuple[str, int]], gate: float) -> None:
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, index in names:
            parameters[name][index] *= gate


@pytest.mark.parametrize("channel", [0, 5, 40])
def test_a_gate_gradient_is_the_derivative_of_the_loss_by_a_factor_on_the_channel(channel: int) -> None:
    model, penalty, inputs = network()
    model.double()
    inputs = inputs.double()
    loss_of(model, inputs).backward()
    gradient = float(gates_from_gradients(penalty.groups)[0][channel])
    group, index = penalty.channels[channel]
    norm = group.replace("conv", "bn")
    names, step = [(f"{norm}.weight", index), (f"{norm}.bias", index)], 1e-5
    scaled(model, names, 1 + step)
    above = float(loss_of(model, inputs))
    scaled(model, names, (1 - step) / (1 + step))
    below = float(loss_of(model, inputs))
    assert gradient == pytest.approx((above - below) / (2 * step), rel=1e-3, abs=1e-7)


def test_a_block_gate_is_the_sum_over_what_the_block_holds() -> None:
    model, penalty, inputs = network()
    loss_of(model, inputs).backward()
    block = penalty.blocks[0]
    affine = [p for name, p in model.named_parameters() if name.startswith(f"{block}.") and "bn" in name]
    expected = sum(float((p * p.grad).sum()) for p in affine if p.grad is not None)
    assert float(gates_from_gradients(penalty.groups)[1][0]) == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_after_reweighting_emptying_times_go_with_the_square_of_sensitivity_per_mac() -> None:
    _, penalty, _ = network()
    sensitivities = torch.rand(len(penalty.channels)) + 0.1
    blocks = torch.rand(len(penalty.blocks)) + 0.1
    penalty = reweighted(penalty, sensitivities, blocks)
    times = emptying_times(penalty)
    for time, sensitivity, costs in zip(
        times, (sensitivities, blocks), (penalty.leaf_costs, penalty.block_costs), strict=True
    ):
        ratio = time * (costs / sensitivity) ** 2
        torch.testing.assert_close(ratio, ratio[0].expand_as(ratio), rtol=1e-3, atol=0.0)


def test_emptying_times_say_when_the_proximal_map_empties_a_channel() -> None:
    _, penalty, _ = network()
    times = emptying_times(penalty)[0]
    middle = float(times.median())
    penalty.prox_(middle * 1.0001, 0.0, 1.0)
    assert torch.equal(penalty.zero_channels(), times <= middle * 1.0001)


def test_the_map_uses_the_new_weights() -> None:
    _, penalty, _ = network()
    sensitivities = torch.ones(len(penalty.channels))
    sensitivities[3] = 1e-2
    penalty = reweighted(penalty, sensitivities, torch.ones(len(penalty.blocks)))
    times = emptying_times(penalty)[0]
    penalty.prox_(float(times[3]) * 1.01, 0.0, 1.0)
    assert penalty.zero_channels().nonzero().flatten().tolist() == [3]


def test_an_insensitive_group_does_not_take_all_the_weight() -> None:
    weights = sensitivity_weights(torch.ones(4), torch.ones(4), torch.tensor([0.0, 1.0, 1.0, 1.0]), torch.ones(4))
    assert torch.isfinite(weights).all()
    assert float(weights[0] / weights[1]) == pytest.approx(1e6)
