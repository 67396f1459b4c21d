"""Whatever a forward returns is looked into, by where it stands; what cannot be is named."""

import collections
import enum
import functools
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from amsc.borrowing import OwnState, look_into, with_tensors
from amsc.errors import ModelError

A, B = torch.zeros(2), torch.ones(3)


class Named(NamedTuple):
    scores: Tensor
    boxes: Tensor


@dataclass
class Data:
    scores: Tensor
    more: list[Tensor] = field(default_factory=list)


class Slots:
    __slots__ = ("__hidden", "scores")

    def __init__(self) -> None:
        self.scores, self.__hidden = A, B


class Lazy(Mapping[str, Tensor]):
    """A mapping that holds its entries in an attribute."""

    def __init__(self) -> None:
        self.store, self.extra = {"a": A}, B

    def __getitem__(self, key: str) -> Tensor:
        return self.store[key]

    def __iter__(self) -> Any:
        return iter(self.store)

    def __len__(self) -> int:
        return len(self.store)


class Unkeyed(collections.OrderedDict[str, Tensor]):
    """Registered as the outputs of a well-known diffusion library are: without keys."""


class Backwards:
    """A pytree node whose children are not what its attributes are."""

    def __init__(self, first: Tensor, last: Tensor) -> None:
        self.first, self.last = first, last


class Colour(enum.Enum):
    RED = 1


pytree.register_pytree_node(
    Unkeyed, lambda o: (list(o.values()), list(o)), lambda v, k: Unkeyed(zip(k, v, strict=True))
)
pytree.register_pytree_node(Backwards, lambda o: ([o.last, o.first], None), lambda v, _: Backwards(v[1], v[0]))


@pytest.mark.parametrize(
    ("output", "names"),
    [
        (A, ["output"]),
        ((A, [B, 3.5]), ["output[0]", "output[1][0]", "output[1][1]"]),
        ({"a": A, 3: B}, ["output['a']", "output[3]"]),
        (Named(A, B), ["output.scores", "output.boxes"]),
        (Data(A, [B]), ["output.scores", "output.more[0]"]),
        (collections.UserDict(a=A), ["output['a']"]),
        (collections.UserList([A, B]), ["output[0]", "output[1]"]),
        (collections.deque([A]), ["output[0]"]),
        ({"a": A}.values(), ["output[0]"]),
        (Lazy(), ["output['a']", "output.extra"]),
        (types.SimpleNamespace(inner=types.SimpleNamespace(a=A)), ["output.inner.a"]),
        (Slots(), ["output._Slots__hidden", "output.scores"]),
        (Unkeyed(a=A, b=B), ["output['a']", "output['b']"]),
        (Backwards(A, B), ["output[0]", "output[1]"]),
        ({frozenset([A]): 1}, ["output[key 0]", "output{key 0}{0}"]),
        (nn.utils.rnn.pack_sequence([A]), ["output.data", "output.batch_sizes"]),
        (torch.max(torch.eye(2), 1), ["output[0]", "output[1]"]),
        (np.zeros(2), ["output"]),
        (np.array([A.numpy(), B.numpy()], dtype=object), ["output[0]", "output[1]"]),
        ([np.float32(1), 1j, True], ["output[0]", "output[1]", "output[2]"]),
        (torch.distributions.Normal(A, A + 1), ["output.loc", "output.scale", "output._batch_shape[0]"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_leaves_are_found_by_where_they_stand(output: Any, names: list[str]) -> None:
    assert list(look_into(output).leaves) == names


def test_constants_are_told_from_what_is_left_alone() -> None:
    seen = look_into(["a", None, Colour.RED, torch.float32, nn.Linear(2, 2), len, Data, lambda: 0])
    assert list(seen.constants.values()) == ["a", None, Colour.RED, torch.float32]
    assert not seen.leaves


def test_sets_have_the_order_of_what_they_hold() -> None:
    elements = [torch.full((2,), float(i)) for i in range(6)] + [torch.zeros(3)]
    one = look_into({*elements, "word"})
    other = look_into({*(tensor.clone() for tensor in reversed(elements)), "word"})
    assert len(one.leaves) == 7
    assert all(torch.equal(a, b) for a, b in zip(one.tensors.values(), other.tensors.values(), strict=True))
    assert one.leaves.keys() == other.leaves.keys()


def test_cycles_are_entered_once() -> None:
    ring: dict[str, Any] = {"a": A, "list": []}
    ring["list"] += [ring, B]
    assert list(look_into(ring).leaves) == ["output['a']", "output['list'][1]"]


def test_what_has_no_end_is_refused() -> None:
    class Endless(collections.UserList[Any]):
        def __iter__(self) -> Any:
            return iter([Endless()])

    with pytest.raises(ModelError, match=r"or 1,000 in one another, the last at output.0"):
        look_into(Endless())


class Stream(map):  # type: ignore[type-arg]
    """Python's own class around one in C."""


def closure(tensor: Tensor) -> Callable[[], Tensor]:
    return lambda: tensor


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ((part for part in [A]), r"output\[1\].*builtins\.generator"),
        (closure(A), r"output\[1\].*builtins\.function"),
        (functools.partial(torch.add, A), r"functools\.partial"),
        (Data(A).more.append, r"builtin"),
        (iter([A]), "list_iterator"),
        (Stream(str, [A]), "Stream"),
        (ValueError(A), "ValueError"),
        (types.SimpleNamespace(inner=[object()]), r"output\[1\]\.inner\[0\] .*builtins\.object"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_looked_into_is_named(value: Any, words: str) -> None:
    with pytest.raises(
        ModelError, match=rf"{words}.*return the tensors themselves|{words}.*Return the tensors themselves"
    ):
        look_into((A, value))


class Cache:
    def __init__(self) -> None:
        self.keys = A


@dataclass
class Whole:
    keys: Tensor


class Reader(nn.Module):
    def forward(
        self, x: Tensor, memory: Any = None, *, cache: "Cache | None" = None, whole: Whole | None = None
    ) -> Any:
        return x


class Required(nn.Module):
    def forward(self, x: Tensor, cache: Cache) -> Any:
        return x


@pytest.mark.parametrize(
    ("output", "state"),
    [
        ((A, Cache()), ["output[1]"]),
        ({"x": A, "memory": types.SimpleNamespace(a=A)}, ["output['memory']"]),
        (types.SimpleNamespace(x=A, memory=Cache()), ["output.memory"]),
        ((A, Whole(A)), []),
        ({"x": A, "memory": [A]}, []),
        ({"x": A, "other": types.SimpleNamespace(a=A)}, []),
    ],
)
def test_state_of_the_model_is_what_it_takes_back_as_an_option(output: Any, state: list[str]) -> None:
    own = OwnState.of(nn.Sequential(nn.Linear(2, 2), Reader()))
    assert list(look_into(output, own).state) == state
    assert all(not name.startswith(tuple(state)) for name in look_into(output, own).leaves) or not state


def test_what_a_model_must_be_given_is_no_state() -> None:
    assert not look_into((A, Cache()), OwnState.of(Required())).state


@pytest.mark.parametrize(
    "output",
    [
        A,
        (A, [B, 3.5]),
        {"a": A, 3: B},
        Named(A, B),
        Data(A, [B]),
        Lazy(),
        Slots(),
        types.SimpleNamespace(inner=types.SimpleNamespace(a=A)),
        Unkeyed(a=A, b=B),
        Backwards(A, B),
        nn.utils.rnn.pack_sequence([A]),
        torch.max(torch.eye(2), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_tensors_are_replaced_in_a_copy(output: Any) -> None:
    before = look_into(output).tensors
    first, *others = before
    new = torch.full((2,), 7.0)
    found = with_tensors(output, {first: new})
    after = look_into(found).tensors
    assert type(found) is type(output)
    assert list(after) == list(before)
    assert after[first] is new
    assert all(after[name] is before[name] for name in others)
    assert look_into(output).tensors[first] is before[first]


class Lasting:
    """A copy of it is it."""

    def __init__(self) -> None:
        self.scores = A

    def __deepcopy__(self, memo: Any) -> "Lasting":
        return self


@pytest.mark.parametrize(
    ("output", "name", "words"),
    [({"a": A}.values(), "output[0]", "cannot be copied"), (Lasting(), "output.scores", "when it is copied")],
)
def test_tensors_that_cannot_be_replaced_are_told(output: Any, name: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        with_tensors(output, {name: B})
