"""Order of the data, the watched loss, the schedule."""

import math

import pytest
import torch
from torch import Tensor, nn

from amsc.errors import DataError, TrainingError
from amsc.training import Batches, Stretch, train_steps
from amsc.training.steps.loop import ahead, cosine, derived_seed
from training.small import TASK, ListData, small_data


def _labels(batches: Batches, epoch: int) -> list[int]:
    return [int(label) for _, target in batches.epoch(epoch) for label in target]


def _numbers(*sizes: int) -> ListData:
    return ListData(tuple((torch.randn(n, 3), torch.zeros(n, dtype=torch.long)) for n in sizes))


def test_seed_phase_and_epoch_alone_decide_the_order() -> None:
    data = small_data()
    assert _labels(Batches(data, 0, "dense"), 1) == _labels(Batches(data, 0, "dense"), 1)
    others = [Batches(data, 1, "dense"), Batches(data, 0, "finetune")]
    orders = [_labels(Batches(data, 0, "dense"), 0), _labels(Batches(data, 0, "dense"), 1)]
    orders += [_labels(batches, 0) for batches in others]
    assert len({tuple(order) for order in orders}) == 4


def test_an_epoch_starts_dropout_anew_so_that_no_random_state_must_be_saved() -> None:
    batches, drawn = Batches(small_data(), 3, "dense"), []
    for _ in range(2):
        torch.rand(7)
        next(batches.epoch(5))
        drawn.append(torch.rand(4))
    assert torch.equal(*drawn)


def test_going_on_at_an_epoch_gives_the_batches_that_would_have_come() -> None:
    batches = Batches(small_data(), 0, "dense")
    per_epoch = batches.data.num_batches("train")
    whole = [target for _, target in batches.take(2 * per_epoch)]
    rest = [target for _, target in batches.take(per_epoch, first_epoch=1)]
    assert all(torch.equal(a, b) for a, b in zip(whole[per_epoch:], rest, strict=True))


def test_a_single_left_over_example_is_skipped_but_a_batch_size_of_one_works() -> None:
    assert [len(target) for _, target in Batches(_numbers(4, 4, 1), 0, "x").take(3)] == [4, 4, 4]
    assert [len(target) for _, target in Batches(_numbers(1), 0, "x").take(2)] == [1, 1]


def test_an_epoch_without_batches_is_an_error_and_not_an_endless_loop() -> None:
    with pytest.raises(DataError, match="gave no batch"):
        list(Batches(ListData(()), 0, "x").take(3))


def _train(model: nn.Module, data: ListData, steps: int, rate: float = 0.1) -> float:
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    return train_steps(model, optimizer, Batches(data, 0, "dense").take(steps), TASK, Stretch("dense", 40, 100))


def test_the_mean_loss_is_returned_and_the_callers_random_numbers_are_left_alone() -> None:
    model, data = nn.Linear(3, 2), _numbers(4)
    inputs, target = data.items[0]
    first = TASK.loss(model(inputs), target).item()
    torch.manual_seed(9)
    expected = torch.rand(1)
    torch.manual_seed(9)
    assert _train(model, data, 1) == pytest.approx(first)
    assert torch.equal(torch.rand(1), expected)
    assert _train(model, data, 50) < first


@pytest.mark.parametrize("bad", [0, 7, 33])
def test_a_loss_that_is_not_finite_stops_with_the_very_step_and_what_to_try(bad: int) -> None:
    items = [(torch.randn(4, 3), torch.zeros(4, dtype=torch.long)) for _ in range(35)]
    items[bad] = (torch.full((4, 3), torch.nan), items[bad][1])
    # without learning, so that only the bad batch itself gives a bad loss
    with pytest.raises(TrainingError, match=rf"nan at step {40 + bad + 1} of 100 of the dense phase.*lower") as caught:
        _train(nn.Linear(3, 2), ListData(tuple(items)), 35, rate=0.0)
    assert caught.value.exit_code == 7


def test_progress_hears_the_last_step_and_what_is_watched() -> None:
    heard: list[tuple[str, int, int, dict[str, float]]] = []

    class Listener:
        def update(self, phase: str, step: int, steps: int, **values: float) -> None:
            heard.append((phase, step, steps, values))

    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batches = Batches(_numbers(4), 0, "dense").take(25)
    stretch = Stretch("width", 5, 60)
    train_steps(model, optimizer, batches, TASK, stretch, watch=lambda: {"macs": 3.0}, progress=Listener())
    assert [(phase, step, steps) for phase, step, steps, _ in heard] == [("width", 25, 60), ("width", 30, 60)]
    assert all(values["macs"] == 3.0 and math.isfinite(values["loss"]) for *_, values in heard)


def test_inputs_may_be_named_arguments() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward(self, *, left: Tensor, right: Tensor) -> Tensor:
            output: Tensor = self.linear(left + right)
            return output

    batch = {"left": torch.randn(4, 3), "right": torch.randn(4, 3)}
    assert math.isfinite(_train(Sum(), ListData(((batch, torch.zeros(4, dtype=torch.long)),)), 3))


def test_the_cosine_rises_to_one_and_falls_to_zero() -> None:
    factors = [cosine(step, 100, warmup=5) for step in range(100)]
    assert factors[:5] == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6])
    assert factors[5] == 1.0
    assert factors[5:] == sorted(factors[5:], reverse=True)
    assert 0 < factors[-1] < 1e-3
    assert cosine(0, 1) == 1.0


def test_derived_seeds_fit_every_generator_and_differ() -> None:
    seeds = {derived_seed(seed, phase, epoch) for seed in range(5) for phase in ("a", "b") for epoch in range(20)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_batches_come_ahead_in_their_order_and_whole(device: str) -> None:
    made = [({"x": torch.full((64, 64), float(number)), "scale": number}, torch.arange(number)) for number in range(5)]
    came = list(ahead(iter(made), torch.device(device)))
    assert len(came) == len(made)
    for (inputs, target), (wanted, labels) in zip(came, made, strict=True):
        assert inputs["x"].device.type == target.device.type == device
        assert torch.equal(inputs["x"].cpu(), wanted["x"])
        assert torch.equal(target.cpu(), labels)
        assert inputs["scale"] == wanted["scale"]
    assert list(ahead(iter([]), torch.device(device))) == []
