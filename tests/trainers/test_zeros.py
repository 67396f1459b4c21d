"""A strength with a scale, fisher weights from losses, and zeros as a plan: the hand-written loop."""

import copy
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam

from amsc.errors import SettingsError, TrainingError
from amsc.penalty import Penalty, reweighted
from amsc.structure import Rounding, trace
from amsc.surgery import cut
from amsc.trainers import strength_for, zero_plan
from amsc.training import ProximalStep
from amsc.training.gates.sensitivity import gate_sensitivities
from trainers.loops import DATA, DENSE, EXAMPLE
from training.small import TASK, ListData, small_net


def losses(net: Any, count: int) -> Iterator[Tensor]:
    for x, labels in list(DATA.batches("train", seed=0))[:count]:
        yield functional.cross_entropy(net(x), labels)


def penalised(**options: Any) -> tuple[Any, Penalty]:
    """With channels of very different norms."""
    net = copy.deepcopy(DENSE)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.mul_(torch.linspace(0.3, 1.5, len(module.weight)))
    return net, Penalty(trace(net, EXAMPLE), net, **options)


def emptied(optimizer: ProximalStep, steps: int) -> list[tuple[float, float]]:
    """The shares of channels and of blocks that are zero after each step, where the loss does not resist."""
    found = []
    for _ in range(steps):
        for parameter in optimizer.penalty.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        zeros = optimizer.penalty.zero_channels(), optimizer.penalty.zero_blocks()
        found.append((float(zeros[0].float().mean()), float(zeros[1].float().mean())))
    return found


@pytest.mark.parametrize("share", [0.25, 0.7])
def test_the_strength_empties_the_share_of_channels_if_the_loss_does_not_resist(share: float) -> None:
    net, penalty = penalised()
    optimizer = ProximalStep(SGD(net.parameters(), lr=0.02, momentum=0.9), penalty)
    optimizer.width_strength = strength_for(optimizer, share, steps=50)
    empty = emptied(optimizer, 52)
    one = 1 / len(penalty.channels)
    assert empty[40][0] < share
    assert empty[48][0] <= share + one
    assert empty[51][0] >= share - one


def test_blocks_take_longer_than_they_start() -> None:
    net, penalty = penalised()
    optimizer = ProximalStep(SGD(net.parameters(), lr=0.02, momentum=0.9), penalty)
    optimizer.depth_strength = strength_for(optimizer, 0.5, steps=50, of="blocks")
    empty = emptied(optimizer, 150)
    assert empty[48][1] < 0.5
    assert empty[149][1] >= 0.5


def test_what_is_zero_counts_already() -> None:
    net, penalty = penalised()
    optimizer = ProximalStep(SGD(net.parameters(), lr=0.02), penalty)
    full = strength_for(optimizer, 0.5, steps=50)
    penalty.prox_(0.02, 0.0, 25 * full)  # as 25 steps
    zeros = float(penalty.zero_channels().float().mean())
    assert 0 < zeros < 0.5
    assert strength_for(optimizer, zeros / 2, steps=50) == 0
    assert 0 < strength_for(optimizer, 0.5, steps=50) < full


@pytest.mark.parametrize("wrong", [{"share": 0.0}, {"share": 1.2}, {"steps": 0}, {"of": "filters"}], ids=str)
def test_a_wrong_share_is_refused(wrong: dict[str, Any]) -> None:
    net, penalty = penalised()
    optimizer = ProximalStep(SGD(net.parameters(), lr=0.02), penalty)
    with pytest.raises(SettingsError, match="expected a share above 0"):
        strength_for(optimizer, **{"share": 0.5, "steps": 10, **wrong})


def test_adam_has_no_scale_before_its_first_step() -> None:
    net, penalty = penalised()
    optimizer = ProximalStep(Adam(net.parameters(), lr=0.001), penalty)
    with pytest.raises(TrainingError, match="before its first step"):
        strength_for(optimizer, 0.5, steps=10)
    next(losses(net, 1)).backward()
    optimizer.step()
    strength = strength_for(optimizer, 0.5, steps=10)
    assert 0 < strength < math.inf


def test_zeros_become_a_plan_and_rounding_holds_them_back() -> None:
    net, penalty = penalised()
    with torch.no_grad():
        penalty.prox_(1.0, 0.0, float(penalty.leaf_norms().median() / penalty.leaf_weights.median()))
    zero = [leaf for leaf, is_zero in zip(penalty.channels, penalty.zero_channels().tolist(), strict=True) if is_zero]
    plan = zero_plan(penalty)
    sizes = {group.name: group.size for group in penalty.structure.channels}
    for name in {name for name, _ in zero}:
        own = [index for group, index in zero if group == name]
        assert set(plan.channels[name]) <= set(own)
        assert len(plan.channels[name]) == min(len(own), sizes[name] - 1)
    net.eval()
    torch.testing.assert_close(cut(net, plan)(EXAMPLE), net(EXAMPLE))
    rounded = zero_plan(penalty, rounding=Rounding(4)).channels
    assert rounded != plan.channels
    assert all((sizes[name] - len(gone)) % 4 == 0 for name, gone in rounded.items())


def test_fisher_weights_are_those_of_a_run_on_the_same_batches() -> None:
    """With batches too small to be taken apart a run looks at each as a whole, as `losses` do."""
    net = copy.deepcopy(DENSE).eval()
    net.zero_grad()
    structure = trace(net, EXAMPLE)
    batches = tuple((x[:8], labels[:8]) for x, labels in list(DATA.batches("train", seed=0))[:4])
    found = Penalty(
        structure, net, weights="fisher", losses=(functional.cross_entropy(net(x), labels) for x, labels in batches)
    )
    plain = Penalty(structure, net)
    expected = reweighted(plain, *gate_sensitivities(net, plain, ListData(batches), TASK))
    torch.testing.assert_close(found.leaf_weights, expected.leaf_weights, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.block_weights, expected.block_weights, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(found.leaf_weights, plain.leaf_weights, rtol=0.1)
    assert all(parameter.grad is None for parameter in net.parameters())


def test_fisher_without_losses_says_what_to_give() -> None:
    net = small_net()
    with pytest.raises(SettingsError, match="losses="):
        Penalty(trace(net, EXAMPLE), net, weights="fisher")
