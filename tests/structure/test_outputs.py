"""What a forward returns stays as it is, in whatever object; only the model's own state follows a cut."""

import collections
import types
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import amsc
from amsc.errors import ModelError, VerificationError
from amsc.surgery import apply_plan, verify

X = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))


class Output(collections.OrderedDict[str, Any]):
    """As pytree knows the outputs of a well-known diffusion library: without keys."""


class Cache:
    """Tensors of one layer, kept for the next call."""

    def __init__(self, keys: Tensor) -> None:
        self.keys = keys


pytree.register_pytree_node(Output, lambda o: (list(o.values()), list(o)), lambda v, k: Output(zip(k, v, strict=True)))


class Net(nn.Module):
    """Boxes, and the hidden features in an object."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.boxes, self.wrap = nn.Linear(5, 12), nn.Linear(12, 7), nn.Linear(7, 4), wrap

    def forward(self, x: Tensor, *, memory: Any = None) -> Any:
        features = self.b(F.relu(self.a(x)))
        return self.boxes(F.relu(features)), self.wrap(features)


WRAPS: dict[str, Callable[[Tensor], Any]] = {
    "mapping": lambda f: collections.UserDict(f=f),
    "attributes": lambda f: types.SimpleNamespace(deep=[types.SimpleNamespace(f=f)]),
    "pytree without keys": lambda f: Output(f=f),
    "set": lambda f: {(f, "features")},
    "object": Cache,
}


def structure_of(model: nn.Module) -> amsc.Structure:
    return amsc.cuttable(model, amsc.trace(model, X), X)


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_what_stands_in_an_object_is_an_output(wrap: Callable[[Tensor], Any]) -> None:
    model = Net(wrap)
    structure = structure_of(model)
    assert [group.name for group in structure.channels] == ["a"]
    assert "it is an output of the model" in structure.explain("b.weight")
    small = amsc.cut(model, amsc.plan_cut(structure, channels={"a": range(6)}), X)
    with torch.no_grad():
        small.b.bias[0] += 1  # the boxes may not show it
    with pytest.raises(VerificationError, match=r"output\["):
        verify(model, small, small.amsc_plan, X)


@pytest.mark.parametrize("name", ["generator", "function"])
def test_what_could_hide_a_tensor_is_refused(name: str) -> None:
    wraps: dict[str, Callable[[Tensor], Any]] = {
        "generator": lambda f: (row for row in f),
        "function": lambda f: lambda: f,
    }
    with pytest.raises(ModelError, match=rf"output\[1\] .*of class builtins\.{name}.*[Rr]eturn the tensors"):
        amsc.trace(Net(wraps[name]), X)


def test_the_state_of_the_model_follows_a_cut_and_is_named() -> None:
    model = Net(lambda f: {"memory": Cache(f)})
    with pytest.warns(UserWarning, match=r"output\[1\]\['memory'\], of class Cache, is taken for state"):
        structure = structure_of(model)
    assert [group.name for group in structure.channels] == ["a", "b"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small = amsc.cut(model, amsc.plan_cut(structure, channels={"b": [0, 1]}), X)
    assert small(X)[1]["memory"].keys.shape == (4, 5)


def test_state_alone_is_no_output() -> None:
    class Mute(Net):
        def forward(self, x: Tensor, *, memory: Any = None) -> Any:
            return {"memory": Cache(self.a(x))}

    with pytest.raises(
        ModelError, match=r"without a tensor but for its own state \(output\['memory'\] of class Cache\)"
    ):
        amsc.trace(Mute(Cache), X)


@pytest.mark.parametrize(
    ("wrap", "words"),
    [
        (
            lambda model, f: f"{model.b.in_features} features",
            "output.1. is '12 features' before the cut and '6 features'",
        ),
        (lambda model, f: [f] * model.b.in_features, "output.1..6. only before the cut"),
        (lambda model, f: (f * 0 + model.b.in_features).numpy(), "differs from the masked model"),
    ],
)
def test_whatever_else_is_returned_is_compared(wrap: Callable[..., Any], words: str) -> None:
    class Telling(Net):
        def forward(self, x: Tensor, *, memory: Any = None) -> Any:
            boxes, features = super().forward(x)
            return boxes, wrap(self, features)

    model = Telling(lambda f: f)
    with torch.no_grad():
        plan = amsc.plan_cut(amsc.trace(model, X), channels={"a": range(6)})
        with pytest.raises(VerificationError, match=words):
            verify(model, apply_plan(model, plan), plan, X)
