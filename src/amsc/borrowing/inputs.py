"""Example inputs: the calls of a model that they are, the same as data, and random ones of their kind."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from amsc.errors import InputError

__all__ = [
    "Calls",
    "InputSpec",
    "TensorSpec",
    "call_arguments",
    "copied_inputs",
    "example_calls",
    "map_tensors",
    "random_inputs",
]


class Calls:
    """Several example calls of one model, each as one would be given alone: a tensor, a tuple or list of positional
    arguments, or a dict of keyword arguments.

    Give them where one call does not run the whole network, such as one head of several:

        amsc.trace(model, amsc.Calls(images, (images, "depth"), {"x": images, "head": "edges"}))

    What is learnt of all of them is one structure, and a cut is verified on all of them. What a network costs (MACs,
    latency, memory) is counted for the first.

    Raises:
        InputError: there is no call, one of them is itself `Calls`, or the only one looks like a list of calls.
    """

    def __init__(self, *calls: Any) -> None:
        if not calls:
            raise InputError("Calls() holds no call; give at least one, as forward takes it: Calls(images)")
        if any(isinstance(call, Calls) for call in calls):
            raise InputError("Calls(...) takes single calls, not Calls; write all of them in one: Calls(first, second)")
        if len(calls) == 1 and _holds_a_tensor_again(calls[0]):
            raise InputError(
                "Calls(...) takes each call as an argument of its own, as in Calls(x, (x, 'depth')), not a list of"
                " calls; a list or tuple is the arguments of one call (give such a call alone, without Calls)"
            )
        self._calls = calls

    def __iter__(self) -> Iterator[Any]:
        return iter(self._calls)

    def __len__(self) -> int:
        return len(self._calls)

    def __repr__(self) -> str:
        """How many calls there are."""
        return f"Calls({len(self)} example calls)"


def _holds_a_tensor_again(call: Any) -> bool:
    """Whether a tensor stands in a list or tuple alone, and in a group beside that as well."""
    parts = call if isinstance(call, tuple | list) else ()
    alone = {id(part) for part in parts if isinstance(part, Tensor)}
    groups = [part for part in parts if not isinstance(part, Tensor)]
    return any(id(leaf) in alone for leaf in pytree.tree_leaves(groups))


@dataclass(frozen=True)
class TensorSpec:
    """Shape, dtype (such as "float32") and value range of one input; a non-tensor input is `constant`."""

    shape: tuple[int, ...] = ()
    dtype: str = ""
    low: float = 0.0
    high: float = 0.0
    constant: Any = None


@dataclass(frozen=True)
class InputSpec:
    """The arguments of a call as data: its leaves, and the layout that puts them back together; `more` are those of
    further example calls."""

    leaves: tuple[TensorSpec, ...]
    layout: str
    more: tuple["InputSpec", ...] = ()

    @classmethod
    def of(cls, example_inputs: Any) -> "InputSpec":
        """The specification of `example_inputs` (a tensor, a tuple or list of positional arguments, a dict of keyword
        arguments, or `Calls` of these)."""
        first, *others = (cls._of_one(call) for call in example_calls(example_inputs))
        return replace(first, more=tuple(others))

    @classmethod
    def _of_one(cls, call: Any) -> "InputSpec":
        leaves, layout = pytree.tree_flatten(call_arguments(call))
        return cls(tuple(_leaf_spec(leaf) for leaf in leaves), pytree.treespec_dumps(layout))

    @property
    def calls(self) -> tuple["InputSpec", ...]:
        """The specification of each call alone, the first one first."""
        return (replace(self, more=()), *self.more)


def _leaf_spec(leaf: Any) -> TensorSpec:
    if not isinstance(leaf, Tensor):
        return TensorSpec(constant=leaf)
    has_range = leaf.numel() > 0 and not leaf.is_complex() and leaf.device.type != "meta"
    low, high = (float(leaf.min()), float(leaf.max())) if has_range else (0.0, 1.0)
    return TensorSpec(tuple(leaf.shape), str(leaf.dtype).removeprefix("torch."), low, high)


def random_inputs(spec: InputSpec, device: torch.device, generator: torch.Generator) -> Any:
    """Random example inputs (a tuple of positional or a dict of keyword arguments, or `Calls` of these) of the
    specified shapes: standard normal for floating point, uniform between the values seen for integers. `generator`
    lives on the CPU."""
    if spec.more:
        return Calls(*(random_inputs(call, device, generator) for call in spec.calls))
    leaves = [_random_leaf(leaf, device, generator) for leaf in spec.leaves]
    positional, keyword = pytree.tree_unflatten(leaves, pytree.treespec_loads(spec.layout))
    return keyword or positional


def _random_leaf(spec: TensorSpec, device: torch.device, generator: torch.Generator) -> Any:
    if not spec.dtype:
        return spec.constant
    dtype = getattr(torch, spec.dtype)
    if dtype.is_floating_point or dtype.is_complex:
        return torch.randn(spec.shape, generator=generator).to(device, dtype)
    values = torch.randint(int(spec.low), int(spec.high) + 1, spec.shape, generator=generator)
    return values.to(device, dtype)


def example_calls(example_inputs: Any) -> tuple[Any, ...]:
    """The single calls that `example_inputs` are: one, unless they are `Calls`."""
    return tuple(example_inputs) if isinstance(example_inputs, Calls) else (example_inputs,)


def call_arguments(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """`example_inputs`, of `Calls` the first, as (positional, keyword) arguments of `forward`.

    Raises:
        InputError: it is neither a tensor nor a tuple, list or dict that holds one.
    """
    call = example_calls(example_inputs)[0]
    if isinstance(call, Tensor):
        return (call,), {}
    if isinstance(call, Mapping):
        arguments: tuple[tuple[Any, ...], dict[str, Any]] = ((), dict(call))
    elif isinstance(call, tuple | list):
        arguments = (tuple(call), {})
    else:
        raise InputError(
            "example_inputs must be a tensor, a tuple of positional arguments or a dict of keyword arguments"
            f" (amsc.Calls(...) of these for several calls), not {type(call).__name__}"
        )
    if not any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(arguments)):
        raise InputError("example_inputs holds no tensor; give one batch as the model's forward takes it")
    return arguments


def map_tensors(change: Callable[[Tensor], Tensor], example_inputs: Any) -> Any:
    """The same inputs with each tensor changed."""
    if isinstance(example_inputs, Calls):
        return Calls(*(map_tensors(change, call) for call in example_inputs))
    return pytree.tree_map_only(Tensor, change, example_inputs)


def copied_inputs(example_inputs: Any) -> Any:
    """The same inputs in tensors of their own: a forward may write to what it is given."""
    return map_tensors(Tensor.clone, example_inputs)
