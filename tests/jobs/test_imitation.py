"""The task imitation: networks with outputs of any kind become smaller without labels."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from amsc import Settings, Target, compress, pick, scan
from amsc.cli import main
from amsc.data import Imitated, LoaderData, Unlabelled, inputs_alone
from amsc.errors import AmscWarning, DataError, ModelError, SettingsError, TargetError
from amsc.jobs.stages.ruin import advantage
from amsc.settings import read_settings
from amsc.tasks import Classification, Imitation, Regression, Segmentation, Task
from amsc.training import evaluate
from training.small import same_tensors

INSTANT = Settings.of("instant")
SHORT = Settings(path_epochs=0.5, finetune_epochs=0.5, path_points=2, finetune_learning_rate=0.005)
TARGET = Target(macs=0.6)
IMAGES = torch.randn(96, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def unlabelled(inputs: Tensor = IMAGES, size: int = 32) -> LoaderData:
    batches = list(inputs.split(size))
    return LoaderData(batches, batches, batches, split=inputs_alone)


class Block(nn.Module):
    """A residual block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x).relu())


class Body(nn.Module):
    """Features of an image."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.blocks = nn.Conv2d(1, 8, 3, padding=1), nn.Sequential(Block(8), Block(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.stem(x))


class MapAndNumber(Body):
    """A feature map, a number for each image, and one for all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.count = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> dict[str, Any]:
        features = super().forward(x)
        number = self.count(features.mean((2, 3))).squeeze(1)
        return {"map": features, "number": number, "mean": number.mean(), "largest": number.argmax(), "kind": "both"}


@dataclass
class Two:
    """What `Pair` returns."""

    box: Tensor
    tokens: Tensor


class Pair(Body):
    """A vector and a sequence for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.box = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Two:
        features = super().forward(x)
        return Two(self.box(features.relu().mean((2, 3))), features.flatten(2).transpose(1, 2))


class Classifier(Body):
    """Logits of five classes."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8 * 64, 5)

    def forward(self, x: Tensor) -> Tensor:
        return 3 * self.head(super().forward(x).flatten(1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {"logits": Classifier, "map and number": MapAndNumber, "pair": Pair}


def compressed(net: nn.Module, **options: Any) -> Any:
    options = {"target": TARGET, "task": Imitation(), "settings": INSTANT, **options}
    return compress(net, IMAGES[:1], options.pop("data", unlabelled()), **options)


@pytest.mark.parametrize("settings", [INSTANT, SHORT], ids=["instant", "short"])
@pytest.mark.parametrize("name", NETWORKS)
def test_any_network_goes_to_60_percent_without_labels(name: str, settings: Settings) -> None:
    net, data = NETWORKS[name](), unlabelled()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    result = compressed(net, settings=settings)
    record = result.record
    assert record.after.macs <= 0.6 * record.before.macs
    assert (record.score_name, record.score_before) == ("divergence from the dense network", 0.0)
    answers = advantage(net, Imitated(data, net), Imitation())
    assert answers is not None
    assert 0 < record.score_after < 0.25 * answers.value
    assert record.warnings == ()
    assert evaluate(result.model, Imitated(data, net), "test", Imitation()).score == pytest.approx(record.score_after)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_the_smallest_network_within_a_drop_in_units_of_the_score() -> None:
    record = compressed(Pair(), target=Target(drop=0.02), settings=SHORT).record
    assert record.after.macs < record.before.macs
    assert record.path[-1].score <= 0.02
    assert record.target == "drop=0.02 (in units of the divergence from the dense network)"
    with pytest.raises(TargetError, match="points are for scores that are shares"):
        compressed(Pair(), target=Target(drop="2%"))


def test_pick_imitates_the_dense_network_of_the_walked_run(tmp_path: Path) -> None:
    net = Classifier()
    walked = compressed(net, target=Target(macs=0.4), settings=SHORT, out=tmp_path / "run")
    other = Classifier()
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    found = pick(tmp_path / "run", other, IMAGES[:1], unlabelled(), target=Target(macs=0.7), task=Imitation())
    assert found.record.score_before == 0.0
    score = evaluate(found.model, Imitated(unlabelled(), net), "test", Imitation()).score
    assert score == pytest.approx(found.record.score_after, rel=1e-4)
    assert score < walked.record.score_after


def test_a_run_that_was_stopped_goes_on_to_the_same_network(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    class Stopping:
        def update(self, phase: str, step: int, steps: int, **values: float) -> None:
            if phase == "finetune":
                raise Stop

    whole = compressed(Pair(), settings=SHORT)
    with pytest.raises(Stop):
        compressed(Pair(), settings=SHORT, out=tmp_path / "run", progress=Stopping())
    later = compressed(Pair(), settings=SHORT, out=tmp_path / "run", resume=True)
    assert later.record.score_after == whole.record.score_after
    assert same_tensors(later.model.state_dict(), whole.model.state_dict())


def test_no_network_is_as_good_as_the_dense_one_by_its_own_answers() -> None:
    with pytest.raises(SettingsError, match=r"one-standard-error.* compared with itself"):
        compressed(Pair(), settings=replace(SHORT, depth_rule="one-standard-error"))
    share = replace(SHORT, depth_rule="share")
    assert compressed(Pair(), settings=share).record.settings["depth_rule"] == "share"


@pytest.mark.parametrize("name", NETWORKS)
def test_a_scan_foresees_what_goes_wrong(name: str) -> None:
    found = scan(NETWORKS[name](), IMAGES[:1], unlabelled(), task=Imitation(), shares=(0.8, 0.5, 0.3), evaluate=True)
    predicted = [point.predicted_increase for point in found.points]
    scores = [point.score for point in found.points]
    assert predicted[0] == scores[0] == 0.0
    assert predicted == sorted(predicted)
    assert predicted[-1] > 0.01
    for guess, score in zip(predicted[1:], scores[1:], strict=True):
        assert score is not None
        assert score / 2 < guess < 2 * score


def test_labels_do_not_count() -> None:
    batches = [(images, torch.arange(len(images))) for images in IMAGES.split(32)]
    labelled = compressed(Classifier(), data=LoaderData(batches, batches, batches))
    assert labelled.record.score_after == compressed(Classifier()).record.score_after


class TimeFirst(Body):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = super().forward(x)
        return features, features.flatten(2).permute(2, 0, 1)


class WholeNumbers(Body):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).argmax(1)


class OneNumber(Body):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mean()


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (TimeFirst, r"output\[1\] has the shape \(64, 32, 8\) for 32 examples; wrap the model"),
        (WholeNumbers, "at least one float tensor .* got no float tensor"),
        (OneNumber, "at least one float tensor .* got single numbers for 32 examples"),
    ],
)
def test_outputs_that_cannot_be_imitated(net: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        compressed(net())
    with pytest.raises(ModelError, match=message):
        scan(net(), IMAGES[:1], unlabelled(), task=Imitation())


@pytest.mark.parametrize("net", [TimeFirst, OneNumber])
def test_batches_of_one_example_may_have_any_output(net: Callable[[], nn.Module]) -> None:
    record = compressed(net(), data=unlabelled(IMAGES[:12], size=1)).record
    assert record.after.macs <= 0.6 * record.before.macs
    assert 0 < record.score_after < 0.2


@pytest.mark.parametrize("task", [None, Classification(), Regression(), Segmentation()])
def test_tasks_that_need_labels_say_so(task: Task | None) -> None:
    name = type(task or Classification()).__name__.lower()
    with pytest.raises(DataError, match=f"loader has no labels, and {name} needs them; .* task imitation"):
        compress(Classifier(), IMAGES[:1], unlabelled(), target=TARGET, task=task)
    with pytest.raises(DataError, match=f"{name} expects .* got Unlabelled"):
        (task or Classification()).loss(
            torch.zeros(3, 2, 4) if name == "segmentation" else IMAGES[:3, 0, 0], Unlabelled(3)
        )


@pytest.mark.parametrize(
    ("choices", "message"),
    [({"dense_epochs": 1}, "dense_epochs=1 would train the dense"), ({"distillation": 0.5}, "distillation=0.5 adds")],
)
def test_settings_that_mean_nothing(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        compressed(Classifier(), settings=Settings(**choices))


class Constant(Classifier):
    def forward(self, x: Tensor) -> Tensor:
        return 0.0 * super().forward(x) + torch.arange(5.0)


def test_a_network_with_one_answer_for_all_has_nothing_to_imitate() -> None:
    with pytest.warns(AmscWarning, match="the dense network gives every example the same answer"):
        compressed(Constant())


class Heavy(Classifier):
    """One that lives on what may be removed from it."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        with torch.no_grad():
            for block in self.blocks:
                block.second.weight.mul_(factor)


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (6.0, "answers little like the dense one: the div.* from 0 to 0.*, and is 0.* mean answer"),
        (8.0, "no better than"),
    ],
)
def test_a_network_that_lost_its_answers_is_told(factor: float, message: str) -> None:
    bare = Settings.of("instant", reconstruction=0)
    with pytest.warns(AmscWarning, match=message):
        record = compressed(Heavy(factor), target=Target(macs=0.3), settings=bare).record
    assert len(record.warnings) == 1
    assert compressed(Heavy(factor), target=Target(macs=0.3)).record.warnings == ()  # reconstructed, it has not


WORDS = ["training.small:small_net", "--data", "digits", "--task", "imitation", "--limit", "200", "--threads", "1"]


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    options = ["--effort", "instant", "--target", "macs=60%", "--out", str(out), "--json"]
    assert main(["compress", *WORDS, *options]) == 0
    record = json.loads(capsys.readouterr().out)["record"]
    assert record["score_name"] == "divergence from the dense network"
    assert record["after"]["macs"] <= 0.6 * record["before"]["macs"]
    run = read_settings(out / "settings.toml")
    assert (run.task, run.settings.depth_rule) == ("imitation", "equal-cost")
    assert main(["resume", str(out), "--model", WORDS[0], "--quiet"]) == 0


def test_the_command_line_scans(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scan", *WORDS, "--examples", "40", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)["scan"]
    assert record["score_name"] == "divergence from the dense network"
    assert record["points"][-1]["predicted_increase"] > 0
