"""A captured step trains as the step itself does; on the CPU its replays are plain calls."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from amsc.data import ImageData, ImageSplit, Unlabelled, open_data
from amsc.errors import AmscWarning, SettingsError
from amsc.penalty import Penalty
from amsc.settings import Settings
from amsc.structure import trace
from amsc.structure.costing import predicted_macs
from amsc.surgery import stand_in
from amsc.training import (
    Distillation,
    OptimizerChoice,
    ProximalStep,
    Speed,
    Stretch,
    TrainSettings,
    WalkSettings,
    finetune,
    train_steps,
    walk,
)
from amsc.training.steps.captured import MOST_KINDS, WARM_UP, CapturedStep, PlainRecorder, step_of
from amsc.training.steps.loop import set_learning_rate
from amsc.training.steps.optimizers import make_optimizer
from amsc.training.steps.step import TrainingStep
from training.small import TASK, shrink, small_data, small_net

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
CHOICES = {
    "sgd": OptimizerChoice(0.05),
    "adamw": OptimizerChoice(0.003, "adamw"),
    "no momentum": OptimizerChoice(0.05, momentum=0.0),
}
STRENGTH = 0.05


class Counting(PlainRecorder):
    """How often was something run as it is, recorded, and replayed?"""

    def __init__(self) -> None:
        self.runs, self.records, self.replays = 0, 0, 0

    def run(self, function: Callable[[], Tensor]) -> Tensor:
        self.runs += 1
        return function()

    def record(self, function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        self.records += 1

        def replay() -> Tensor:
            self.replays += 1
            return function()

        return replay


def captured(model: nn.Module, choice: OptimizerChoice = CHOICES["sgd"]) -> tuple[CapturedStep, Counting, Any]:
    optimizer, recorder = make_optimizer(model, choice, capture=True), Counting()
    return CapturedStep(TrainingStep(model, optimizer, TASK), recorder), recorder, optimizer


def batch(size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, 1, 8, 8, generator=generator), torch.randint(10, (size,), generator=generator)


def close(found: nn.Module, expected: nn.Module, device: str = "cpu") -> None:
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if device == "cpu" else {"rtol": 2e-2, "atol": 2e-3}
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], tensor, **tolerance)


@pytest.mark.parametrize("kind", CHOICES)
@pytest.mark.parametrize("device", DEVICES)
def test_fine_tuning_captured_comes_out_as_it_does_otherwise(device: str, kind: str) -> None:
    data = open_data("digits", seed=0, batch_size=16, device=device, limit=96)
    teacher = small_net(1).to(device)
    outcomes = []
    for capture in (False, True):
        model = small_net().to(device)
        settings = TrainSettings("finetune", 3, CHOICES[kind], ema=0.9, speed=Speed(capture=capture))
        finetune(model, data, TASK, settings, teach=Distillation(copy.deepcopy(teacher), 0.5, 4.0))
        outcomes.append(model)
    close(outcomes[1], outcomes[0], device)
    assert not torch.equal(outcomes[0].conv1.weight, small_net().conv1.weight.to(device)), "it was trained"


def test_it_resumes_after_an_epoch_identically() -> None:
    data, settings = small_data(), TrainSettings("dense", 3, CHOICES["adamw"], speed=Speed(capture=True))
    whole, other, states = small_net(), small_net(9), list[Any]()
    finetune(whole, data, TASK, settings, save=states.append)
    finetune(other, data, TASK, settings, state=states[0])
    close(other, whole)


def test_each_kind_of_batch_is_recorded_once_after_a_few() -> None:
    step, recorder, _ = captured(small_net())
    for number in range(WARM_UP + 4):
        step(*batch(8, number))
        step(*batch(7, number))
    assert (recorder.runs, recorder.records, recorder.replays) == (2 * WARM_UP, 2, 8)


def test_no_more_than_some_kinds_are_recorded() -> None:
    step, recorder, _ = captured(small_net())
    for number in range(WARM_UP + 2):
        for size in range(3, 3 + MOST_KINDS + 2):
            step(*batch(size, number))
    assert recorder.records == MOST_KINDS
    assert recorder.runs == (MOST_KINDS + 2) * WARM_UP + 2 * 2, "the others are computed as they come"


def test_a_replay_takes_the_new_batch_and_the_new_rate() -> None:
    model = small_net()
    expected = copy.deepcopy(model)
    step, recorder, optimizer = captured(model)
    plain = TrainingStep(expected, make_optimizer(expected, CHOICES["sgd"]), TASK)
    for number in range(WARM_UP + 3):
        for one in (optimizer, plain.optimizer):
            set_learning_rate(one, 0.01 * (number + 1))
        found, wanted = step(*batch(8, number)), plain(*batch(8, number))
        torch.testing.assert_close(found, wanted)
    assert recorder.replays == 3
    close(model, expected)


def test_numbers_in_a_batch_are_no_place_to_copy_to() -> None:
    """A recording knows the numbers that it was made with: others are another kind of batch."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small_net()

        def forward(self, x: Tensor, scale: float) -> Tensor:
            return self.net(x) * scale

    model = Scaled()
    step, recorder, _ = captured(model)
    for number in range(WARM_UP + 2):
        x, target = batch(8, number)
        step((x, 1.0), target)
    assert recorder.records == 1
    step((x, 2.0), target)
    assert recorder.runs == WARM_UP + 1


def test_what_nobody_knows_in_a_batch_is_never_recorded() -> None:
    class Own(type(TASK)):  # type: ignore[misc]
        def loss(self, output: Any, target: Any) -> Tensor:
            return output.square().mean()

    model, recorder = small_net(), Counting()
    step = CapturedStep(TrainingStep(model, make_optimizer(model, CHOICES["sgd"], capture=True), Own()), recorder)
    for number in range(WARM_UP + 3):
        step(batch(8, number)[0], Unlabelled(8))
    assert (recorder.runs, recorder.records) == (WARM_UP + 3, 0)


def test_what_cannot_be_recorded_trains_without_and_says_so() -> None:
    class Failing(Counting):
        def record(self, function: Callable[[], Tensor]) -> Callable[[], Tensor]:
            raise RuntimeError("operation not permitted when stream is capturing")

    model = small_net()
    expected = copy.deepcopy(model)
    step = CapturedStep(TrainingStep(model, make_optimizer(model, CHOICES["sgd"], capture=True), TASK), Failing())
    plain = TrainingStep(expected, make_optimizer(expected, CHOICES["sgd"]), TASK)
    for number in range(WARM_UP + 3):
        plain(*batch(8, number))
    for number in range(WARM_UP):
        step(*batch(8, number))
    with pytest.warns(AmscWarning, match="CifarResNet cannot be captured, and trains without .operation not permitted"):
        step(*batch(8, WARM_UP))
    for number in (WARM_UP + 1, WARM_UP + 2):
        step(*batch(8, number))
    close(model, expected)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
@pytest.mark.parametrize("device", DEVICES)
def test_the_proximal_map_is_captured_with_strengths_that_change(device: str, kind: str) -> None:
    structure, outcomes = trace(small_net(), batch(1)[0]), []
    for capture in (False, True):
        model = small_net().to(device)
        penalty = Penalty(structure, model)
        optimizer = ProximalStep(make_optimizer(model, CHOICES[kind], capture=capture), penalty)
        batches = [tuple(one.to(device) for one in batch(8, number)) for number in range(24)]

        def strengthen(number: int, optimizer: ProximalStep = optimizer) -> None:
            optimizer.width_strength = 0.0 if number < 6 else STRENGTH * number
            optimizer.depth_strength = 0.0 if number < 12 else STRENGTH

        train_steps(
            model,
            optimizer,
            iter(batches),
            TASK,
            Stretch("path", 0, 24),
            before=strengthen,
            speed=Speed(capture=capture),
        )
        outcomes.append((model, penalty.zero_channels().cpu(), penalty.zero_blocks().cpu()))
    (expected, channels, blocks), (found, *zeros) = outcomes
    close(found, expected, device)
    assert torch.equal(zeros[0], channels)
    assert torch.equal(zeros[1], blocks)
    assert channels.any()


@pytest.mark.parametrize("device", DEVICES)
def test_a_path_takes_the_same_decisions_captured(device: str) -> None:
    data = open_data("digits", seed=0, batch_size=16, device=device, limit=96)
    removals = []
    for capture in (False, True):
        model = small_net().to(device)
        structure = trace(model, data.example_inputs(1))
        settings = WalkSettings(epochs=3, points=3, optimizer=OptimizerChoice(0.05), speed=Speed(capture=capture))
        target = predicted_macs(structure) // 2
        points = walk(
            model, structure, data, TASK, shrink=shrink, target_cost=target, settings=settings, stand_in=stand_in
        )
        removals.append([snapshot.removal for _, snapshot, _ in points])
    assert removals[0] == removals[1]
    assert removals[0][-1]


def test_a_step_is_captured_where_its_speed_says_so() -> None:
    model = small_net()
    step = TrainingStep(model, make_optimizer(model, CHOICES["sgd"]), TASK)
    assert step_of(step) is step
    assert isinstance(step_of(TrainingStep(model, step.optimizer, TASK, speed=Speed(capture=True))), CapturedStep)


def test_a_run_is_captured_on_cuda_alone() -> None:
    assert Settings(capture=True, device="cuda:1").capture
    with pytest.raises(SettingsError, match="capture records training steps as CUDA graphs, and the device is cpu"):
        Settings(capture=True)


def test_images_of_two_batch_sizes_are_all_that_amsc_hands_out() -> None:
    """So both are recorded, whatever the number of images."""
    images = torch.zeros(103, 1, 8, 8, dtype=torch.uint8)
    split = ImageSplit(images, torch.zeros(103, dtype=torch.int64))
    data = ImageData("made", dict.fromkeys(("train", "validation", "test"), split), 10, (0.0,), (1.0,), 16)
    assert len({len(target) for _, target in data.batches("train", seed=1)}) == 2 <= MOST_KINDS
