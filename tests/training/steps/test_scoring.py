"""Scores on the way of training: taken when they are due, and without a trace."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from amsc.borrowing import generator_states
from amsc.data import Data, LoaderData
from amsc.tasks import Classification
from amsc.training import OptimizerChoice, TrainSettings, TrainState, evaluate, finetune
from amsc.training.steps.scoring import steps_between
from training.small import TASK, ListData, same_tensors, small_data, small_net

SETTINGS = TrainSettings("finetune", 2.5, OptimizerChoice(0.1), seed=4)
STEPS = 25


class Heard:
    """Keeps what progress was told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, dict[str, float]]] = []

    def update(self, phase: str, step: int, steps: int, **values: float) -> None:
        self.told.append((step, values))

    @property
    def scores(self) -> dict[int, float]:
        return {step: values["score"] for step, values in self.told if "score" in values}


class WithDropout(nn.Module):
    """Draws random numbers in train mode, and has statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.dropout = small_net(), nn.Dropout(0.2)

    def forward(self, images: Tensor) -> Any:
        return self.dropout(self.net(images))


def trained(every: Any, **options: Any) -> tuple[nn.Module, float, Heard, list[Any]]:
    """The network, its last loss, what was heard, and what was seen at each step: mode, statistics, generators."""
    torch.manual_seed(3)
    net, heard, seen = WithDropout(), Heard(), []

    def look(inputs: Any, output: Tensor, loss: Tensor) -> Tensor:
        modes = {module.training for module in net.modules()}
        seen.append((modes, net.net.bn1.running_var.clone(), generator_states(), loss.item()))
        return loss

    settings = dataclasses.replace(SETTINGS, score_every=every)
    loss = finetune(net, small_data(), TASK, settings, teach=look, progress=heard, **options)
    return net, loss, heard, seen


def test_scoring_leaves_no_trace() -> None:
    before = generator_states()
    plain, plain_loss, unheard, unseen = trained(0.0)
    after_plain = generator_states()
    scored, loss, heard, seen = trained(0.1)  # after each step
    assert generator_states() == after_plain != before
    assert list(heard.scores) == list(range(1, STEPS))
    assert unheard.scores == {}
    assert same_tensors(scored.state_dict(), plain.state_dict())
    assert loss == plain_loss
    assert len(seen) == len(unseen) == STEPS
    for (modes, variances, generators, value), (_, wanted, drawn, lost) in zip(seen, unseen, strict=True):
        assert modes == {True}
        assert torch.equal(variances, wanted)
        assert (generators, value) == (drawn, lost)


def test_a_score_is_of_the_weights_at_its_step_and_none_is_chosen_by() -> None:
    states: list[TrainState] = []
    net, _, heard, _ = trained(1.0, save=states.append)
    assert list(heard.scores) == [10, 20], "not at the end, which is judged anyway"
    for state, score in zip(states, heard.scores.values(), strict=False):
        other = WithDropout()
        other.load_state_dict(dict(state.weights))
        assert evaluate(other, small_data(), "validation", TASK).score == score
    assert same_tensors(net.state_dict(), states[-1].weights), "the last weights, whatever the scores were"


def test_a_score_is_told_beside_the_loss_of_its_step() -> None:
    _, _, heard, seen = trained(0.7)
    assert list(heard.scores) == [7, 14, 21]
    losses = {step: values["loss"] for step, values in heard.told if "score" in values}
    assert losses[7] == pytest.approx(sum(value for *_, value in seen[:7]) / 7, rel=1e-6)
    assert losses[14] == pytest.approx(sum(value for *_, value in seen[10:14]) / 4, rel=1e-6)


def test_training_that_goes_on_is_scored_at_the_same_steps() -> None:
    states: list[TrainState] = []
    _, _, whole, _ = trained(0.4, save=states.append)
    _, _, rest, _ = trained(0.4, state=states[0])
    assert list(whole.scores) == [4, 8, 12, 16, 20, 24]
    assert rest.scores == {step: score for step, score in whole.scores.items() if step > 10}


class Undefined(Classification):
    """A score that is no number."""

    def per_example(self, output: Any, target: Tensor) -> Tensor:
        return super().per_example(output, target) * torch.nan


def test_a_score_that_is_no_number_is_left_out() -> None:
    heard = Heard()
    settings = dataclasses.replace(SETTINGS, epochs=1, score_every=0.2)
    loss = finetune(small_net(), small_data(), Undefined(), settings, progress=heard)
    assert loss > 0
    assert heard.told
    assert heard.scores == {}


def batches(train: int, validation: int) -> Data:
    class Counted(ListData):
        def num_batches(self, split: str) -> int:
            return {"train": train, "validation": validation}[split]

    return Counted(())


@pytest.mark.parametrize(
    ("often", "steps", "validation", "wanted"),
    [
        (0.0, 100, 10, 0.0),
        (0.5, 100, 10, 5.0),
        ("auto", 1000, 10, 200.0),  # 40 forward passes of batches are far below 5 % of 1000 steps
        ("auto", 267, 10, 267 / 5),  # 13.35 steps may go, and 13.33 do
        ("auto", 265, 10, 265 / 4),
        ("auto", 67, 10, 67 / 2),
        ("auto", 66, 10, 0.0),
    ],
)
def test_four_times_or_as_often_as_it_costs_little(often: Any, steps: int, validation: int, wanted: float) -> None:
    assert steps_between(often, steps, batches(10, validation)) == pytest.approx(wanted)


def test_intervals_that_are_no_whole_steps_are_kept_on_the_whole() -> None:
    _, _, heard, _ = trained(0.3)  # 3.0000000000000004 steps
    assert list(heard.scores) == [3, 6, 9, 12, 15, 18, 21, 24]


def test_a_loader_for_both_splits_can_be_read_while_it_is_read() -> None:
    images, labels = next(small_data(batch_size=96).batches("train"))
    loader = DataLoader(TensorDataset(images, labels), batch_size=16, shuffle=True)
    data, nets = LoaderData(loader, loader), [small_net(), small_net()]
    for net, every in zip(nets, (0.0, 0.5), strict=True):
        finetune(net, data, TASK, dataclasses.replace(SETTINGS, score_every=every))
    assert same_tensors(nets[0].state_dict(), nets[1].state_dict())
