"""Networks that are good for nothing are told, before a run and after it; training that diverges is an error of it."""

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from amsc import Result, Settings, Target, compress
from amsc.cli.console import Console
from amsc.cli.working import show_outcome
from amsc.data import LoaderData
from amsc.errors import AmscWarning, DataError, TrainingError
from amsc.jobs.stages.ruin import advantage
from amsc.report import render
from amsc.tasks import Classification, Regression, Segmentation, Task
from amsc.words.record import path_remarks
from report.fixed import fixed_record

INPUTS = torch.randn(192, 8, generator=torch.Generator().manual_seed(0))
LABELS = (INPUTS[:, 0] > 0).long()
NUMBERS = 2 * INPUTS[:, :1] + 5


def data_of(targets: Any, inputs: Tensor = INPUTS, size: int = 32) -> LoaderData:
    batches = [(inputs[i : i + size], targets[i : i + size]) for i in range(0, len(inputs), size)]
    return LoaderData(batches, batches, batches)


class Net(nn.Module):
    """Two hidden layers, of which the first two units know the first input, and no others."""

    def __init__(self, outputs: int, knows: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, outputs)
        with torch.no_grad():
            for layer in (self.first, self.second, self.last):
                layer.weight.mul_(0.1)
                layer.bias.zero_()
            self.first.weight[:2] = torch.eye(8)[:1] * torch.tensor([[1.0], [-1.0]])
            self.second.weight[:2] = torch.eye(16)[:2]
            self.last.weight[0, :2] = torch.tensor([-1.0, 1.0]) * knows
            self.last.weight[-1, :2] = torch.tensor([1.0, -1.0]) * knows
            self.first.weight[2:, 0] = 0
            self.second.weight[2:, :2] = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.first(x).relu()).relu())


class Fitted(Net):
    """What `NUMBERS` asks for."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x) + 5


class Mean(nn.Module):
    """The mean of `NUMBERS`, whatever the input, and a little noise."""

    def forward(self, x: Tensor) -> Tensor:
        return 5 + 0.01 * x[:, 1:2]


class Pixels(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, :, None].expand(-1, -1, 4)


class Named(Net):
    """An output of several parts, one of which is no number of an example."""

    def forward(self, x: Tensor) -> Any:
        return {"logits": super().forward(x), "count": len(x), "scale": torch.tensor(2.0)}


@dataclass
class Answer:
    """A class of the user's own, which torch's pytree does not know."""

    logits: Tensor
    inputs: Tensor

    def __getitem__(self, key: str) -> Tensor:
        return {"logits": self.logits}[key]


class Answering(Net):
    def forward(self, x: Tensor) -> Any:
        return Answer(super().forward(x), x)


class OfNamed(Classification):
    def loss(self, output: Any, target: Tensor) -> Tensor:
        return super().loss(output["logits"], target)

    def per_example(self, output: Any, target: Tensor) -> Tensor:
        return super().per_example(output["logits"], target)


@pytest.mark.parametrize(
    ("model", "targets", "task", "is_none"),
    [
        (Net(2), LABELS, Classification(), False),
        (Net(2, knows=0.0), LABELS, Classification(), True),
        (Net(2), 1 - LABELS, Classification(), True),  # always wrong
        (Net(2), LABELS.new_zeros(192), Classification(), True),  # one class, and wrong about half
        (Fitted(1), NUMBERS, Regression(), False),
        (Mean(), NUMBERS, Regression(), True),
        (Pixels(2), LABELS[:, None].expand(-1, 4), Segmentation(), False),
        (Pixels(2, knows=0.0), LABELS[:, None].expand(-1, 4), Segmentation(), True),
        (Named(2), LABELS, OfNamed(), False),
        (Answering(2), LABELS, OfNamed(), False),
        (Answering(2, knows=0.0), LABELS, OfNamed(), True),
    ],
)
def test_what_is_no_better_than_a_constant_answer(model: nn.Module, targets: Tensor, task: Task, is_none: bool) -> None:
    found = advantage(model, data_of(targets), task)
    assert found is not None
    assert found.is_none == is_none


def test_where_it_cannot_be_said_nothing_is() -> None:
    assert advantage(Net(2), data_of(LABELS[:6], INPUTS[:6]), Classification()) is None
    assert advantage(Fitted(1, knows=float("nan")), data_of(NUMBERS), Regression()) is None

    class Sequences(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.cumsum(1)[:, : len(x)]

    class Means(Regression):
        def per_example(self, output: Tensor, target: Tensor) -> Tensor:
            return output.mean(1)

    assert advantage(Sequences(), data_of(NUMBERS, INPUTS[:20], size=7), Means()) is None

    class Views(Net):
        def forward(self, x: Tensor) -> Any:
            return {"logits": super().forward(x)}.values()

    class OfViews(Classification):
        def per_example(self, output: Any, target: Tensor) -> Tensor:
            return super().per_example(next(iter(output)), target)

    assert advantage(Views(2), data_of(LABELS), OfViews()) is None


def run(model: nn.Module, targets: Tensor, task: Task | None = None, **changes: Any) -> Result:
    settings = Settings(**{"path_epochs": 1, "path_points": 2, "finetune_epochs": 1, **changes})
    return compress(model, INPUTS[:1], data_of(targets), target=Target(macs=0.6), task=task, settings=settings)


def test_an_untrained_network_is_told_at_once_and_in_the_report() -> None:
    with pytest.warns(AmscWarning, match=r"the dense network is no better .* same answer \(accuracy .*dense_epochs"):
        record = run(Net(2, knows=0.0), LABELS, path_epochs=0, finetune_epochs=0).record
    (text,) = record.warnings
    assert "is no better than one that gives every example the same answer" in text
    assert text[1:] in render(record), "as a sentence"


@pytest.mark.parametrize(
    ("model", "targets", "task", "rate"), [(Net, LABELS, None, 50.0), (Fitted, NUMBERS, Regression(), 0.5)]
)
def test_a_ruined_network_is_told(model: Callable[[int], nn.Module], targets: Tensor, task: Any, rate: float) -> None:
    outputs = 2 if task is None else 1
    with pytest.warns(
        AmscWarning, match=r"the small network (is no better|has lost).* went from .* to .*learning rates"
    ):
        record = run(
            model(outputs), targets, task, path_learning_rate=rate, finetune_epochs=0, optimizer="adamw"
        ).record
    assert len(record.warnings) == 1


def test_what_fine_tuning_makes_worse_is_given_back_as_it_was() -> None:
    settings = {"finetune_learning_rate": 50.0, "optimizer": "adamw"}
    with pytest.warns(
        AmscWarning, match=r"1 epochs of fine-tuning took the accuracy on the validation split from .* to"
    ):
        result = run(Net(2), LABELS, **settings)
    kept = run(Net(2), LABELS, **settings, finetune_epochs=0)
    assert all(torch.equal(one, kept.model.state_dict()[name]) for name, one in result.model.state_dict().items())
    point = result.record.path[-1]
    assert point.rejected_score is not None
    assert point.rejected_score < point.score == kept.record.path[-1].score
    assert point.epochs == kept.record.path[-1].epochs
    assert not path_remarks(result.record), "the warning says it"


def test_what_fine_tuning_began_with_is_told() -> None:
    record = run(Net(2), LABELS).record
    untrained, tuned = record.path[-2:]
    assert (tuned.phase, tuned.rejected_score) == ("finetune", None)
    assert tuned.score_before == untrained.score
    (words,) = path_remarks(record)
    assert words.startswith("fine-tuning took the accuracy on the validation split from ")
    assert words in str(record)


def test_a_network_that_keeps_what_it_knows_is_no_news() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", AmscWarning)
        record = run(Net(2), LABELS).record
    assert record.score_after > 0.9
    assert record.warnings == ()
    assert "Warnings" not in render(record)


def test_the_terminal_shows_the_warnings(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    record = fixed_record(warnings=("the dense network is no better",))
    show_outcome(record, tmp_path, Console(sys.stdout, sys.stderr))
    assert "warning: the dense network is no better\n" in capsys.readouterr().out


def test_a_drop_of_a_loss_is_recorded_in_its_units() -> None:
    settings = Settings(path_epochs=0.5, path_points=2, finetune_epochs=0.2)
    task = Regression()
    record = compress(
        Fitted(1), INPUTS[:1], data_of(NUMBERS), target=Target(drop=5.0), task=task, settings=settings
    ).record
    assert record.target == "drop=5.0 (in units of the mean squared error)"


@pytest.mark.parametrize(
    ("phase", "targets", "task", "outputs", "said"),
    [
        ("dense", LABELS, None, 2, "lower the learning rate of what has trained it"),  # its accuracy is a number still
        ("path", LABELS, None, 2, "path_learning_rate=1e+20"),  # after fine-tuning it would be worse, and go back
        *((phase, NUMBERS, Regression(), 1, f"{phase}_learning_rate=1e+20") for phase in ("dense", "path", "finetune")),
    ],
)
def test_training_that_diverges_in_its_last_step_is_a_training_error(
    phase: str, targets: Tensor, task: Any, outputs: int, said: str
) -> None:
    epochs = {"dense_epochs": 0.0, "path_epochs": 0.0, "finetune_epochs": 0.0, f"{phase}_epochs": 1 / 6}
    with pytest.raises(TrainingError, match="learning rate") as told:
        run(Net(outputs), targets, task, path_points=1, **epochs, **{f"{phase}_learning_rate": 1e20})
    assert said in str(told.value)


def test_a_score_that_is_never_finite_is_the_data_s_fault() -> None:
    class Odd(Regression):
        def per_example(self, output: Tensor, target: Tensor) -> Tensor:
            return super().per_example(output, target) / (target[:, 0] != NUMBERS[-1, 0])

        def loss(self, output: Tensor, target: Tensor) -> Tensor:
            return functional.mse_loss(output, target)

    with pytest.raises(DataError, match="not a finite number for 1 of 192 examples"):
        run(Fitted(1), NUMBERS, Odd())
