"""One call of a module as data: the leaves of its arguments and output, and copies of the arguments to try it on."""

import copy
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from amsc.structure.values import OutputLeaf

__all__ = [
    "Arguments",
    "argument_leaves",
    "call_signature",
    "copied_arguments",
    "leaves",
    "perturbed",
    "real_arguments",
    "takes_one_tensor",
]

PLAIN = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class Arguments:
    """The positional and keyword arguments of a call."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, leaf) of everything in nested tuples, lists and dicts with string keys; other objects are leaves."""
    if type(value) in (tuple, list):
        for index, part in enumerate(value):
            yield from leaves(part, (*path, str(index)))
    elif type(value) is dict and all(isinstance(key, str) for key in value):
        for key, part in value.items():
            yield from leaves(part, (*path, key))
    else:
        yield path, value


def argument_leaves(module: nn.Module, arguments: Arguments) -> list[tuple[OutputLeaf, Any]]:
    """Each leaf of the arguments, with what a module must be told to return it ("input")."""
    names = _positional_names(module)
    found = []
    for position, value in enumerate(arguments.args):
        top = OutputLeaf("input", position, names[position] if position < len(names) else "")
        found += [(replace(top, path=path), leaf) for path, leaf in leaves(value)]
    for keyword, value in arguments.kwargs.items():
        top = OutputLeaf("input", names.index(keyword) if keyword in names else -1, keyword)
        found += [(replace(top, path=path), leaf) for path, leaf in leaves(value)]
    return found


def copied_arguments(arguments: Arguments) -> Arguments:
    """Arguments that a trial may change: tensors and objects such as caches are copies, modules are not.

    Raises whatever an object's own copying raises."""
    return _mapped(arguments, lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else copy.deepcopy(leaf))


def perturbed(arguments: Arguments, shapes: set[torch.Size] | None = None) -> Arguments:
    """A copy with other values of the same range in the floating point tensors (of these `shapes`).

    Each keeps its numbers, in another order, so that what was not negative stays so; equal numbers are drawn anew.
    Additive masks stay as they are. Without such a tensor, integer tensors are put in another order.
    """
    copies = copied_arguments(arguments)
    tensors = [leaf for leaf in _tensors(copies) if shapes is None or leaf.shape in shapes]
    floating = [tensor for tensor in tensors if tensor.is_floating_point()]
    new = {id(tensor): _reordered(tensor) for tensor in floating or tensors}
    return _mapped(copies, lambda leaf: new.get(id(leaf), leaf))


def real_arguments(arguments: Arguments) -> Arguments:
    """Arguments on the meta device with values: standard normal, true, or zero for integers."""
    return _mapped(arguments, lambda leaf: _real(leaf) if isinstance(leaf, Tensor) else copy.deepcopy(leaf))


def call_signature(arguments: Arguments) -> tuple[Any, ...]:
    """What two calls must share to behave alike at zero: places, shapes, dtypes, signs and plain values."""
    found: list[Any] = [len(arguments.args)]
    for place, value in (*enumerate(arguments.args), *sorted(arguments.kwargs.items())):
        found += [(place, path, _leaf_signature(leaf)) for path, leaf in leaves(value)]
    return tuple(found)


def _leaf_signature(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        is_known = leaf.is_floating_point() and not leaf.is_meta and leaf.numel() > 0
        return leaf.shape, leaf.dtype, is_known and bool(leaf.min() >= 0)
    return (type(leaf), leaf) if isinstance(leaf, PLAIN) else type(leaf)


def takes_one_tensor(module: nn.Module) -> bool:
    """Whether forward has one parameter, which can come by position: nn.Identity can be called like it."""
    kinds = [parameter.kind for parameter in _forward_parameters(module)]
    return kinds in ([inspect.Parameter.POSITIONAL_ONLY], [inspect.Parameter.POSITIONAL_OR_KEYWORD])


def _positional_names(module: nn.Module) -> list[str]:
    """Names of the positional parameters of forward, "" where the name cannot be used."""
    by_name, unnamed = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY
    found = (p for p in _forward_parameters(module) if p.kind in (by_name, unnamed))
    return [parameter.name if parameter.kind is by_name else "" for parameter in found]


def _forward_parameters(module: nn.Module) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):  # a forward implemented in C has no signature
        return []


def _tensors(arguments: Arguments) -> list[Tensor]:
    return [leaf for _, leaf in leaves([*arguments.args, arguments.kwargs]) if isinstance(leaf, Tensor)]


def _mapped(arguments: Arguments, change: Callable[[Any], Any]) -> Arguments:
    """The arguments with every leaf changed, the same object always to the same; plain values and modules stay."""
    seen: dict[int, Any] = {}

    def mapped(value: Any) -> Any:
        if type(value) in (tuple, list):
            return type(value)(mapped(part) for part in value)
        if type(value) is dict:
            return {key: mapped(part) for key, part in value.items()}
        if isinstance(value, (*PLAIN, nn.Module)):
            return value
        if id(value) not in seen:
            seen[id(value)] = change(value)
        return seen[id(value)]

    return Arguments(mapped(arguments.args), mapped(arguments.kwargs))


def _reordered(tensor: Tensor) -> Tensor:
    if not tensor.numel() or not bool(torch.isfinite(tensor).all()) or bool((tensor.abs() > MASKED).any()):
        return tensor
    flat = tensor.flatten()
    if tensor.is_floating_point() and bool((flat == flat[0]).all()):
        return torch.rand_like(tensor)
    return flat.flip(0).roll(flat.numel() // 3).view(tensor.shape)


MASKED = 1e4  # larger numbers are taken for those of an additive mask


def _real(tensor: Tensor) -> Tensor:
    if tensor.is_floating_point():
        return torch.randn(tensor.shape, dtype=tensor.dtype)
    return torch.full(tensor.shape, tensor.dtype == torch.bool, dtype=tensor.dtype)
