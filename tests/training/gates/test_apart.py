"""Batches that lie otherwise than example by example: nothing is assumed of an axis, and what cannot be split stays."""

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amsc.borrowing import borrowed
from amsc.errors import DataError
from amsc.penalty import Penalty, find_coordinates
from amsc.structure import trace
from amsc.tasks import Classification, Task
from amsc.training import GateGradients, gate_gradients
from amsc.training.gates.apart import can_split_inputs, can_split_outputs
from amsc.training.gates.gradients import _rows_like_examples
from amsc.training.gates.sensitivity import _sum_of_squares, gate_sensitivities
from training.small import ListData

TASK = Classification()


class Sequences(nn.Module):
    """Classes of sequences, which lie along `time_axis`."""

    def __init__(self, time_axis: int) -> None:
        super().__init__()
        self.time_axis = time_axis
        self.a, self.b, self.head = nn.Linear(6, 10), nn.Linear(10, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.b(F.relu(self.a(x)).mean(self.time_axis))))


class Masked(Sequences):
    """Batch first, with a mask of the time steps that all examples share."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x * mask[:, None])


class Warmed(Sequences):
    """With a single number, such as a time step of diffusion."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x * t)


class Coupled(Sequences):
    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits - logits.mean(0)


class Pieces(Sequences):
    """Sequences of several lengths, in a list."""

    def forward(self, x: list[Tensor]) -> Tensor:  # type: ignore[override]
        return torch.cat([super(Pieces, self).forward(one[None]) for one in x])


def batch(count: int = 24, time: int = 20, seed: int = 1) -> tuple[Tensor, Tensor]:
    chooser = torch.Generator().manual_seed(seed)
    return torch.randn(count, time, 6, generator=chooser), torch.randint(3, (count,), generator=chooser)


Case = tuple[Callable[[], nn.Module], Callable[[Tensor], Any]]


@dataclass
class Answer:
    """A class that torch's pytree does not know."""

    logits: Tensor
    more: Any = None


class Answering(Sequences):
    def __init__(self, more: Any = None) -> None:
        super().__init__(1)
        self.more = more

    def forward(self, x: Tensor) -> Answer:  # type: ignore[override]
        return Answer(super().forward(x), self.more)


class OfAnswers(Classification):
    def loss(self, output: Answer, target: Tensor) -> Tensor:
        return super().loss(output.logits, target)

    def per_example(self, output: Answer, target: Tensor) -> Tensor:
        return super().per_example(output.logits, target)


@pytest.mark.parametrize(("more", "can_split"), [(None, True), (itertools.count(), False)])
def test_outputs_of_any_class_are_looked_into(more: Any, can_split: bool) -> None:
    inputs, target = batch()
    assert can_split_inputs(Answering(more).eval(), OfAnswers(), inputs, target) == can_split


WHOLE: dict[str, Case] = {
    "time first": (lambda: Sequences(0), lambda x: x.transpose(0, 1)),
    "a mask for all": (lambda: Masked(1), lambda x: (x, (torch.arange(20) < 13).float())),
    "a single number": (lambda: Warmed(1), lambda x: (x, torch.tensor(0.5))),
    "a list of pieces": (lambda: Pieces(1), lambda x: (list(x),)),
}


def network(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make().double()


def doubled(inputs: Any) -> Any:
    return torch.utils._pytree.tree_map_only(Tensor, Tensor.double, inputs)


def gradients_of(model: nn.Module, inputs: Any, target: Tensor, task: Task = TASK, **options: Any) -> GateGradients:
    structure = trace(model, inputs)
    data = ListData(((inputs, target),))
    return gate_gradients(model, structure, find_coordinates(structure), {}, data, task, **{"examples": 100, **options})


@pytest.mark.parametrize("name", WHOLE)
def test_what_cannot_be_split_is_known_by_its_shapes(name: str) -> None:
    (make, arranged), (x, target) = WHOLE[name], batch()
    assert not can_split_inputs(network(make), TASK, doubled(arranged(x)), target)
    assert can_split_inputs(network(lambda: Sequences(1)), TASK, x.double(), target)


def test_a_square_of_time_and_batch_is_seen_through() -> None:
    x, target = batch(20, 20)
    assert can_split_inputs(network(lambda: Sequences(1)), TASK, x.double(), target)
    assert not can_split_inputs(network(lambda: Sequences(0)), TASK, x.transpose(0, 1).double(), target)


def test_networks_that_couple_examples_are_not_split() -> None:
    x, target = batch()
    assert not can_split_inputs(network(lambda: Coupled(1)), TASK, x.double(), target)


def test_outputs_that_do_not_count_examples_are_not_split() -> None:
    x, target = batch(5)
    output = Sequences(1)(x)
    assert can_split_outputs(TASK, output, target)
    assert not can_split_outputs(Transposed(), output.T, target)


class Transposed(Classification):
    """Outputs lie (class, example)."""

    def loss(self, output: Any, target: Tensor) -> Tensor:
        return super().loss(output.T, target)

    def per_example(self, output: Any, target: Tensor) -> Tensor:
        return super().per_example(output.T, target)


def test_each_example_has_the_same_derivatives_however_the_batch_lies() -> None:
    x, target = batch()
    expected = gradients_of(network(lambda: Sequences(1)), x.double(), target)
    assert expected.is_batched
    first = gradients_of(network(lambda: Sequences(0)), x.transpose(0, 1).double(), target)
    assert not first.is_batched
    torch.testing.assert_close(first.gradients, expected.gradients)
    some = gradients_of(network(lambda: Sequences(0)), x.transpose(0, 1).double(), target, examples=7)
    torch.testing.assert_close(some.gradients, expected.gradients[:7])


@pytest.mark.parametrize("name", WHOLE)
def test_the_mean_over_the_examples_is_the_derivative_of_the_batch(name: str) -> None:
    (make, arranged), (x, target) = WHOLE[name], batch()
    model, inputs = network(make), doubled(arranged(x))
    found = gradients_of(model, inputs, target)
    assert len(found.gradients) == len(target)
    for i, leaf in enumerate(found.channels[:12]):
        name, index = leaf

        def loss_at(gate: float, name: str = name, index: int = index) -> float:
            other = copy.deepcopy(model)
            layer = other.get_submodule(name)
            with torch.no_grad():
                layer.weight[index] *= gate  # type: ignore[index, operator]
                layer.bias[index] *= gate  # type: ignore[index, operator]
                return float(F.cross_entropy(other(*inputs) if isinstance(inputs, tuple) else other(inputs), target))

        difference = (loss_at(1 + 1e-5) - loss_at(1 - 1e-5)) / 2e-5
        assert float(found.gradients[:, i].mean()) == pytest.approx(difference, rel=1e-4, abs=1e-8)


def test_where_only_mean_losses_are_known_rows_have_the_mean_and_covariance_of_examples() -> None:
    x, target = batch(240)
    model = network(lambda: Sequences(1))
    items = tuple((x[i : i + 4].double(), target[i : i + 4]) for i in range(0, 240, 4))
    structure = trace(model, items[0][0])
    coordinates = find_coordinates(structure)
    arguments = (structure, coordinates, {}, ListData(items))
    exact = gate_gradients(model, *arguments, TASK, examples=240).gradients
    flipped = nn.Sequential(model, Flip())
    structure = trace(flipped, items[0][0])
    coordinates = find_coordinates(structure)
    found = gate_gradients(flipped, structure, coordinates, {}, ListData(items), Transposed(), examples=240).gradients
    assert len(found) == 60
    torch.testing.assert_close(found.mean(0), exact.mean(0))
    ratio = found.var(0).sum() / exact.var(0).sum()
    assert 0.7 < float(ratio) < 1.4


class Flip(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.T


def test_rows_of_means_have_the_spread_of_single_examples() -> None:
    chooser = torch.Generator().manual_seed(0)
    examples = 3 + torch.randn(400, 16, 5, generator=chooser, dtype=torch.float64) * torch.arange(1, 6)
    rows = _rows_like_examples(examples.mean(1), 16)
    torch.testing.assert_close(rows.mean(0), examples.mean((0, 1)))
    torch.testing.assert_close(rows.var(0), examples.flatten(0, 1).var(0), rtol=0.2, atol=0)
    assert torch.equal(_rows_like_examples(rows[:1], 16), rows[:1])


def test_mean_squares_over_chunks_are_estimated_from_whole_batches() -> None:
    chooser = torch.Generator().manual_seed(0)
    chunks = 0.3 + torch.randn(400, 8, 5, generator=chooser, dtype=torch.float64) * torch.arange(1, 6)
    expected = chunks.square().mean((0, 1))
    found = _sum_of_squares(list(chunks.mean(1)), chunks=8.0) / 400
    torch.testing.assert_close(found, expected, rtol=0.2, atol=0)
    biased = chunks.mean(1).square().mean(0)
    assert bool((biased < 0.6 * expected).all()), "the squares of the means alone would be too small"
    one = _sum_of_squares([chunks[0, 0]], chunks=8.0)
    assert torch.equal(one, chunks[0, 0].square())


@pytest.mark.parametrize("count", [16, 40])
def test_sensitivities_are_those_of_the_same_sequences_batch_first(count: int) -> None:
    found = []
    for axis in (1, 0):
        model = network(lambda axis=axis: Sequences(axis))
        items = []
        for seed in range(24):
            x, target = batch(count, seed=seed)
            items.append((x.double() if axis else x.double().transpose(0, 1), target))
        penalty = Penalty(trace(model, items[0][0]), model)
        found.append(gate_sensitivities(model, penalty, ListData(tuple(items)), TASK)[0])
    exact, estimated = (each / each.sum() for each in found)
    if count == 16:  # a batch is a chunk
        torch.testing.assert_close(estimated, exact)
    assert torch.corrcoef(torch.stack([exact, estimated]))[0, 1] > 0.95


def test_what_is_frozen_is_as_sensitive_as_what_is_not() -> None:
    x, target = batch()
    model = network(lambda: Sequences(1))
    data = ListData(((x.double(), target),))
    penalty = Penalty(trace(model, x.double()), model)
    expected = gate_sensitivities(model, penalty, data, TASK)[0]
    model.a.requires_grad_(False)  # type: ignore[operator, union-attr]
    assert torch.equal(gate_sensitivities(model, penalty, data, TASK)[0], expected)
    assert [p.requires_grad for p in model.parameters()] == [False] * 2 + [True] * 4
    assert all(p.grad is None for p in model.parameters())


def test_batches_with_nothing_that_counts_are_refused() -> None:
    x, _ = batch()
    with pytest.raises(DataError, match="first axis counts examples"), borrowed(network(lambda: Sequences(1))) as model:
        can_split_inputs(model, TASK, x.double(), torch.tensor(1.0))
