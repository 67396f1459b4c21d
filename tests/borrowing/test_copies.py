"""A copy of a model is what deepcopy makes of it."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from amsc.borrowing import copied


class Odd(nn.Module):
    """Tied weights, attributes of all sorts, a reference to itself and to a child, and a hook."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.again = self.first
        self.listed, self.shared = [self.first], {"width": [1, 2]}
        self.same, self.none, self.method = self.shared, None, self.forward
        self.register_buffer("steps", torch.arange(3.0))
        self.lstm, self.own = nn.LSTM(3, 2), Own()
        self.inside = (self,)

    def forward(self, x: Tensor) -> Any:
        return self.own(self.lstm(self.second(self.first(x)) + self.steps)[0])


class Own(nn.Module):
    """Copied in its own way: without its cache."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.cache = nn.Parameter(torch.tensor(2.0)), [1]

    def __deepcopy__(self, memo: dict[int, Any]) -> "Own":
        new = Own()
        new.cache, new.scale = [], copy.deepcopy(self.scale, memo)
        return new

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def test_a_copy_gives_the_same_and_shares_nothing() -> None:
    model, inputs = Odd(), torch.randn(2, 3)
    new = copied(model)
    assert torch.equal(new(inputs), model(inputs))
    pairs = zip([*model.parameters(), *model.buffers()], [*new.parameters(), *new.buffers()], strict=True)
    assert all(torch.equal(a, b) and a.data_ptr() != b.data_ptr() for a, b in pairs)
    assert list(new.state_dict()) == list(model.state_dict())
    assert vars(new).keys() == vars(copy.deepcopy(model)).keys()


def test_what_is_one_thing_in_the_model_is_one_in_the_copy() -> None:
    model = Odd()
    new = copied(model)
    assert isinstance(new, Odd)
    assert new.again is new.first is new.listed[0]
    assert new.second.weight is new.first.weight
    assert new.same is new.shared
    assert new.shared is not model.shared
    assert new.inside[0] is new
    assert new.method.__self__ is new
    assert new.lstm._flat_weights[0] is new.lstm.weight_ih_l0
    assert new.first._forward_hooks is not model.first._forward_hooks


def test_modules_with_a_way_of_their_own_are_copied_in_it() -> None:
    new = copied(Odd())
    assert isinstance(new.own, Own)
    assert new.own.cache == []


def test_tensors_are_replaced_wherever_they_are() -> None:
    model = Odd()
    weight = nn.Parameter(torch.zeros(3, 3))
    new = copied(model, {id(model.first.weight): weight})
    assert isinstance(new, Odd)
    assert new.first.weight is new.second.weight is weight
    assert model.first.weight is not weight
