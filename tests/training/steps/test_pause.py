"""Training that is left between two steps goes on as if it had not been; a loss that is no number takes it back."""

import math
import os
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from amsc.errors import NonFiniteLossError, TrainingError
from amsc.stopping import Terminated, stoppable
from amsc.tasks import Classification
from amsc.training import OptimizerChoice, TrainSettings, TrainState, finetune, load_state, save_state
from amsc.training.steps.step import TrainingStep
from training.small import TASK, same_tensors, small_data, small_net

DATA = small_data()
STEPS = DATA.num_batches("train")
SETTINGS = TrainSettings("finetune", 2.5, OptimizerChoice(0.1), seed=4, ema=0.9, score_every=0.3)


class WithDropout(nn.Module):
    """Draws random numbers in every step."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.net = nn.Dropout(0.2), small_net()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(self.drop(x))
        return out


class Listener:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def update(self, phase: str, step: int, steps: int, **values: float) -> None:
        self.heard.append((phase, step, tuple(values.items())))


def signalled(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Have the process asked to end in the middle of this step of all, counted from 1."""
    taken, original = Counter[str](), TrainingStep.__call__

    def take(self: TrainingStep, inputs: Any, target: Any) -> Tensor:
        taken["steps"] += 1
        if taken["steps"] == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, inputs, target)

    monkeypatch.setattr(TrainingStep, "__call__", take)


@pytest.mark.parametrize("step", [1, STEPS, STEPS + 3])
def test_it_goes_on_between_two_steps_identically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    file, whole, heard = tmp_path / "state.pt", WithDropout(), Listener()
    loss = finetune(whole, DATA, TASK, SETTINGS, progress=heard)
    first, again = Listener(), Listener()
    options: dict[str, Any] = {"save": lambda state: save_state(file, state.to_plain()), "progress": first}
    with monkeypatch.context() as patched, stoppable():
        signalled(patched, step)
        with pytest.raises(Terminated):
            finetune(WithDropout(), DATA, TASK, SETTINGS, **options)
    saved = TrainState(**load_state(file))
    assert saved.pause is not None
    assert saved.epochs * STEPS + saved.pause["steps"] == step
    other = WithDropout()
    assert finetune(other, DATA, TASK, SETTINGS, state=saved, progress=again) == loss
    assert same_tensors(other.state_dict(), whole.state_dict())
    assert first.heard + again.heard == heard.heard


class Bad(Classification):
    """Gives no number at some of its calls, counted from 1."""

    calls: Counter[str]

    @staticmethod
    def at(*numbers: int) -> "Bad":
        task = Bad()
        object.__setattr__(task, "calls", Counter())
        object.__setattr__(task, "bad", numbers)
        return task

    def loss(self, output: Any, target: Any) -> Tensor:
        self.calls["all"] += 1
        factor = math.nan if self.calls["all"] in self.bad or self.bad == (0,) else 1.0  # type: ignore[attr-defined]
        return super().loss(output, target) * factor


PLAIN = replace(SETTINGS, score_every=0.0, ema=0.0)


def test_a_loss_that_is_no_number_takes_it_back_to_the_last_epoch_at_half_the_rate() -> None:
    heard, states = Listener(), list[TrainState]()
    net = small_net()
    finetune(net, DATA, Bad.at(STEPS + 2), PLAIN, save=states.append, progress=heard)
    assert ("finetune", STEPS, (("rolled_back", 0.05),)) in heard.heard
    assert [(state.epochs, state.halved) for state in states] == [(1, 0), (2, 1), (3, 1)]
    other = small_net(seed=9)
    finetune(other, DATA, TASK, PLAIN, state=replace(states[0], halved=1))
    assert same_tensors(other.state_dict(), net.state_dict())
    assert all(bool(torch.isfinite(tensor).all()) for tensor in net.state_dict().values())


def test_after_three_times_it_stops_with_the_last_good_state() -> None:
    heard, states = Listener(), list[TrainState]()
    net = small_net()
    # an epoch is left as soon as its losses are looked at, which is at its end here
    bad = Bad.at(*(STEPS + 2 + STEPS * again for again in range(4)))
    with pytest.raises(
        TrainingError, match=r"nan at step.*taken back 3 times.*as it was after 1 epochs is kept"
    ) as why:
        finetune(net, DATA, bad, PLAIN, save=states.append, progress=heard)
    assert isinstance(why.value.__cause__, NonFiniteLossError)
    assert [values for _, _, values in heard.heard if "rolled_back" in dict(values)] == [
        (("rolled_back", rate),) for rate in (0.05, 0.025, 0.0125)
    ]
    assert same_tensors(net.state_dict(), states[-1].weights)
