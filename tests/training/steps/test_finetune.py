"""Ordinary training: it learns, and goes on after any epoch as if it had not stopped."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from amsc.training import OptimizerChoice, TrainSettings, TrainState, evaluate, finetune, load_state, save_state
from training.small import TASK, same_tensors, small_data, small_net

SETTINGS = TrainSettings("dense", 2.5, OptimizerChoice(0.1), seed=4)


def test_it_learns() -> None:
    data, net = small_data(limit=400), small_net()
    before = evaluate(net, data, "validation", TASK).score
    loss = finetune(net, data, TASK, TrainSettings("dense", 8, OptimizerChoice(0.1)))
    assert evaluate(net, data, "validation", TASK).score > before + 0.3
    assert 0 < loss < 1.5


def test_it_resumes_after_every_epoch_identically(tmp_path: Path) -> None:
    data, net = small_data(), small_net()
    states: list[TrainState] = []
    loss = finetune(net, data, TASK, SETTINGS, save=states.append)
    assert [state.epochs for state in states] == [1, 2, 3]
    for state in states:
        save_state(tmp_path / "state.pt", state.to_plain())
        loaded = TrainState(**load_state(tmp_path / "state.pt"))
        other = small_net(seed=99)
        assert finetune(other, data, TASK, SETTINGS, state=loaded) == pytest.approx(loss, rel=1e-12)
        assert same_tensors(other.state_dict(), net.state_dict())


def test_states_are_copies() -> None:
    data, net = small_data(), small_net()
    states: list[TrainState] = []
    finetune(net, data, TASK, SETTINGS, save=states.append)
    assert not same_tensors(states[0].weights, states[1].weights)
    assert not same_tensors(states[0].moments["momentum_buffer"], states[1].moments["momentum_buffer"])


def test_a_fraction_of_an_epoch_takes_that_share_of_the_batches() -> None:
    data, net = small_data(), small_net()
    steps: list[int] = []

    class Listener:
        def update(self, phase: str, step: int, total: int, **values: float) -> None:
            steps.append(step)

    finetune(net, data, TASK, TrainSettings("dense", 1.5, OptimizerChoice(0.1)), progress=Listener())
    assert steps[-1] == round(1.5 * data.num_batches("train"))


def test_no_epochs_change_nothing() -> None:
    net = small_net()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    finetune(net, small_data(), TASK, TrainSettings("dense", 0, OptimizerChoice(0.1)))
    assert same_tensors(before, net.state_dict())


def test_frozen_parameters_stay() -> None:
    net = small_net()
    net.conv1.weight.requires_grad_(False)
    before = net.conv1.weight.clone()
    finetune(net, small_data(), TASK, SETTINGS)
    assert torch.equal(net.conv1.weight, before)


def test_the_average_is_that_of_the_weights_after_every_step() -> None:
    data, net, decay = small_data(), small_net(), 0.8
    seen: list[Tensor] = []
    states: list[TrainState] = []

    def look(inputs: Any, output: Tensor, loss: Tensor) -> Tensor:
        seen.append(net.conv1.weight.detach().clone())
        return loss

    finetune(net, data, TASK, dataclasses.replace(SETTINGS, ema=decay), teach=look, save=states.append)
    wanted = seen[0]
    for weight in (*seen[1:], states[-1].weights["conv1.weight"]):
        wanted = decay * wanted + (1 - decay) * weight
    torch.testing.assert_close(net.conv1.weight.detach(), wanted)
    plain = small_net()
    finetune(plain, data, TASK, SETTINGS)
    assert same_tensors(plain.state_dict(), states[-1].weights)  # averaging leaves the training as it is
    assert not torch.equal(plain.conv1.weight, net.conv1.weight)


def test_the_average_goes_on_after_every_epoch_identically(tmp_path: Path) -> None:
    data, net, settings = small_data(), small_net(), dataclasses.replace(SETTINGS, ema=0.9)
    states: list[TrainState] = []
    finetune(net, data, TASK, settings, save=states.append)
    for state in states:
        save_state(tmp_path / "state.pt", state.to_plain())
        other = small_net(seed=99)
        finetune(other, data, TASK, settings, state=TrainState(**load_state(tmp_path / "state.pt")))
        assert same_tensors(other.state_dict(), net.state_dict())
