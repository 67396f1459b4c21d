"""What must not be refitted is left alone, with a reason, and what cannot be is an error."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import amsc
from amsc.data import LoaderData
from amsc.errors import CutError, DataError, InputError, ModelError, SettingsError
from amsc.reconstruction import reconstruct
from reconstruction.fits import Residual, batches, drawn, largest_difference, made, plan_of_nothing, without


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.then = nn.Linear(4, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.first(x))


class Twice(Pair):
    """Its second layer is called twice."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return torch.cat([self.then(y), self.then(2 * y)], -1)


class Tied(Pair):
    """The weight of its second layer has another name."""

    def __init__(self) -> None:
        super().__init__()
        self.again = self.then.weight


class Halved(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


def computed() -> nn.Module:
    model = Pair()
    parametrize.register_parametrization(model.then, "weight", Halved())
    return model


def frozen() -> nn.Module:
    model = Pair()
    model.then.requires_grad_(False)
    return model


@pytest.mark.parametrize(
    ("build", "words"),
    [(Twice, "used 2 times"), (Tied, "same parameter as then.weight"), (frozen, "frozen"), (computed, "computed")],
)
def test_a_consumer_that_is_not_its_own_is_left_alone(build: Any, words: str) -> None:
    dense, data = made(build), batches(9, 4)
    small = without(dense, data[0], "first", [1])
    found = reconstruct(small, dense, data)
    (layer,) = found.record.layers
    assert words in layer.reason
    assert layer.error_after is None
    assert words in str(found)
    assert all(torch.equal(value, found.model.state_dict()[name]) for name, value in small.state_dict().items())


@pytest.mark.parametrize("where", [0, 4])
def test_values_that_are_not_finite(where: int) -> None:
    dense, data = made(Pair), batches(9, 4)
    small = without(dense, data[0], "first", [1])
    data[where][2, 1] = torch.nan
    found = reconstruct(small, dense, data)
    layer = found.record.layers[-1]
    assert layer.name == "then"
    assert "not finite" in layer.reason
    assert torch.equal(found.model.get_parameter("then.weight"), small.get_parameter("then.weight"))


@pytest.mark.parametrize(
    "data", [batches(1, 4, count=4), [drawn(4, 4)], batches(2, 4, count=2), [torch.ones(8, 4).double()] * 4]
)
def test_few_and_constant_examples_do_no_harm(data: list[Tensor]) -> None:
    dense = made(Pair)
    small = without(dense, data[0], "first", [1, 2])
    found = reconstruct(small, dense, data)
    (layer,) = found.record.layers
    assert layer.error_after is not None
    assert layer.error_before is not None
    assert layer.error_after <= layer.error_before
    fresh = drawn(200, 4, seed=77)
    assert largest_difference(dense, found.model, fresh) < 1.5 * largest_difference(dense, small, fresh)


def test_one_single_position_is_too_little() -> None:
    dense, data = made(Pair), [drawn(1, 4)]
    (layer,) = reconstruct(without(dense, data[0], "first", [1]), dense, data).record.layers
    assert "too few" in layer.reason


def test_no_examples_and_no_inputs_are_errors() -> None:
    dense = made(Pair)
    small = without(dense, drawn(3, 4), "first", [1])
    with pytest.raises(DataError, match="holds none"):
        reconstruct(small, dense, [])
    with pytest.raises(InputError, match="forward failed"):
        reconstruct(small, dense, [drawn(3, 5)])
    with pytest.raises(InputError, match="a tuple of Tensor, Tensor, Tensor"):
        reconstruct(small, dense, [(drawn(3, 4),) * 3])
    with pytest.raises(InputError, match="batches that can be iterated"):
        reconstruct(small, dense, 3)


def test_networks_of_different_cuts_are_an_error() -> None:
    dense, data = made(Pair), batches(9, 4)
    first = without(dense, data[0], "first", [1])
    second = without(first, data[0], "first", [0])
    with pytest.raises(CutError, match="not what the plan makes"):
        reconstruct(second, first, data)
    with pytest.raises(CutError, match="does not carry the plan"):
        reconstruct(dense, dense, data)
    plan = amsc.plan_cut(amsc.trace(first, data[0]), channels={"first": [0]})
    assert len(reconstruct(second, first, data, plan=plan).record.layers) == 1
    assert len(reconstruct(second, dense, data).record.layers) == 1
    with pytest.raises(CutError, match="does not have"):
        reconstruct(made(Residual), nn.Identity(), data, plan=plan_of_nothing(dense, data[0]))


def test_a_frozen_dense_network_is_as_good_as_any() -> None:
    dense, data = made(Pair), batches(9, 4)
    small = without(dense, data[0], "first", [1])
    expected = reconstruct(small, dense, data).record.layers
    assert reconstruct(small, dense.requires_grad_(False), data).record.layers == expected
    with torch.inference_mode():
        assert reconstruct(small, dense, data).record.layers == expected


def test_settings_that_make_no_sense_are_errors() -> None:
    dense = made(Pair)
    small = without(dense, drawn(3, 4), "first", [1])
    with pytest.raises(SettingsError, match="stream or own"):
        reconstruct(small, dense, batches(9, 4), target="both")
    with pytest.raises(SettingsError, match="at least 1"):
        reconstruct(small, dense, batches(9, 4), examples=0)
    with pytest.raises(ModelError, match="got a dict"):
        reconstruct({}, dense, batches(9, 4))  # type: ignore[arg-type]


def test_inputs_come_alone_in_pairs_by_name_and_as_data() -> None:
    dense, data = made(Pair), batches(9, 4)
    small = without(dense, data[0], "first", [1])
    labels = torch.zeros(9, dtype=torch.long)
    loader = LoaderData([(batch, labels) for batch in data], [(data[0], labels)])
    records = [
        reconstruct(small, dense, inputs).record.layers
        for inputs in (data, [(x, labels) for x in data], [[x] for x in data], [{"x": x} for x in data], loader)
    ]
    assert len(records[0]) == 1
    assert all(record == records[0] for record in records)


def test_no_more_examples_than_were_asked_for() -> None:
    dense, data = made(Pair), batches(9, 4)
    small = without(dense, data[0], "first", [1])
    assert reconstruct(small, dense, data, examples=20).record.examples == 20
    assert reconstruct(small, dense, data[0], examples=20).record.examples == 9


def test_examples_of_another_shape_are_fine() -> None:
    dense, other = made(Residual), made(Residual, seed=1)
    found = reconstruct(other, dense, batches(4, 3, 9, 7), plan=plan_of_nothing(dense, drawn(2, 3, 6, 6)))
    assert [layer.name for layer in found.record.layers] == ["stem", "head"]
    assert largest_difference(dense, found.model, drawn(2, 3, 8, 8)) < 1e-7
