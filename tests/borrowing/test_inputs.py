"""Example inputs as calls, as data, and as random inputs of their kind."""

from typing import Any

import pytest
import torch

from amsc.borrowing import Calls, InputSpec, call_arguments, copied_inputs, example_calls, random_inputs, run_model
from amsc.errors import InputError
from amsc.records import from_json, to_json

X, IDS = torch.randn(2, 3), torch.arange(4)


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        (X, ((X,), {})),
        ((X, "depth"), ((X, "depth"), {})),
        ([X, IDS], ((X, IDS), {})),
        ({"x": X}, ((), {"x": X})),
        ([(X,), {"x": X}], (((X,), {"x": X}), {})),  # a list is positional arguments, whatever is in it
        (Calls((X, "depth"), X), ((X, "depth"), {})),
    ],
)
def test_what_forward_is_called_with(given: Any, arguments: Any) -> None:
    args, kwargs = call_arguments(given)
    assert (args, kwargs) == arguments


@pytest.mark.parametrize(
    ("calls", "words"),
    [
        ((), "holds no call"),
        ((X, Calls(X)), "takes single calls"),
        (([X, (X, "depth")],), "each call as an argument of its own"),
        (([X, {"x": X, "head": "depth"}],), "each call as an argument of its own"),
    ],
)
def test_calls_are_calls(calls: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Calls(*calls)


class Picky(torch.nn.Module):
    """Knows one head, and says in different ways that it does not know another."""

    def forward(self, x: Any, head: Any = "one", way: str = "key") -> Any:
        if way == "text" and head != "one":
            raise ValueError(f"no head {head}, only one")
        return {"one": x}[head]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ((X, (IDS, "depth")), r"shape \(2, 3\) float32, \(4,\) int64: KeyError of tuple\(Tensor, 'depth'\);"),
        ((X, (IDS, "depth"), "text"), r"no head \(tensor\(\.\.\.\);"),
        ((X, "depth"), r"shape \(2, 3\) float32: 'depth';"),
        ((X, "depth", "text"), "no head depth, only one;"),
    ],
)
def test_a_forward_that_fails_is_explained_without_the_numbers_of_tensors(inputs: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        run_model(Picky(), inputs)


def test_several_calls_are_data_and_come_back_at_random() -> None:
    given = Calls(X, (X, "depth"), {"ids": IDS})
    spec = InputSpec.of(given)
    assert from_json(InputSpec, to_json(spec)) == spec
    assert [InputSpec.of(call) for call in given] == list(spec.calls)
    again = random_inputs(spec, torch.device("cpu"), torch.Generator().manual_seed(0))
    one, two, three = again
    assert (one[0].shape, two[0].shape, two[1]) == ((2, 3), (2, 3), "depth")
    assert three["ids"].dtype == torch.int64
    assert InputSpec.of(X).calls == (InputSpec.of(X),)


def test_a_copy_shares_no_tensor() -> None:
    given = Calls(X, {"x": X})
    first, second = example_calls(copied_inputs(given))
    assert first is not X
    assert torch.equal(second["x"], X)
    assert second["x"] is not X
