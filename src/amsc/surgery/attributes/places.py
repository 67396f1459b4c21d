"""Where a module keeps whole numbers: in its attributes, and in what these hold; reading and setting them there."""

import copy
import dataclasses
from collections.abc import Iterator, Mapping, MutableMapping
from functools import partial
from itertools import islice
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from amsc.surgery.attributes.values import is_config, read_names

__all__ = ["Place", "label_of", "number_at", "set_number", "whole_numbers"]

# The name of an attribute; then keys, positions and names of attributes that lead to the number.
Place = tuple[Any, ...]

DEPTH = 3
LARGEST = 64  # a vocabulary holds no sizes
MOST = 500
_OWN = frozenset(vars(nn.Module()))
_OPAQUE = (nn.Module, Tensor, type, FunctionType, BuiltinFunctionType, MethodType, ModuleType, str, bytes)


def whole_numbers(module: nn.Module) -> Iterator[tuple[Place, int]]:
    """(place, number) of what `module` keeps in attributes, and in tuples, lists, dicts, partial functions and objects
    there that are neither modules nor tensors. Of a configuration only what the module's own methods read."""
    attributes = {name: value for name, value in vars(module).items() if name not in _OWN}
    yield from islice(_numbers(attributes, (), module), MOST)


def number_at(module: nn.Module, place: Place) -> int | None:
    """The whole number at `place`; None if there is none."""
    value: Any = vars(module)
    for step in place:
        try:
            value = _parts(value)[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value if type(value) is int else None


def set_number(module: nn.Module, place: Place, new: int) -> None:
    """Put `new` at `place`. What holds it there is replaced by a copy: others may share it."""
    name, *rest = place
    value = vars(module)[name]
    # not setattr: a class may watch over its attributes, and the old value got there somehow as well
    vars(module)[name] = _with(value, rest, new) if rest else new


def label_of(module: nn.Module, place: Place) -> str:
    """What the number is called: attribute names and keys on the way to it, without positions and underscores in front.

    A pair of a name and something else counts as a key: {"h": 8} and (("h", 8),) are two ways to keep the same."""
    words, value = [str(place[0]).lstrip("_")], vars(module)[place[0]]
    for step in place[1:]:
        if isinstance(step, str):
            words.append(step)
        elif isinstance(value, tuple) and len(value) == 2 and step == 1 and isinstance(value[0], str):
            words.append(value[0])
        value = _parts(value)[step]
    return ".".join(words)


def _numbers(value: Any, place: Place, module: nn.Module) -> Iterator[tuple[Place, int]]:
    if type(value) is int:
        yield place, value
    elif len(place) < DEPTH and not isinstance(value, _OPAQUE):
        parts = _parts(value)
        if len(parts) > LARGEST and not is_config(value):
            return
        for step, part in parts.items() if isinstance(parts, Mapping) else enumerate(parts):
            if not is_config(value) or step in read_names(module):
                yield from _numbers(part, (*place, step), module)


def _parts(value: Any) -> Any:
    """What a container or object holds: a mapping of keys or names, or a sequence."""
    if isinstance(value, MutableMapping | tuple | list):
        return value
    if isinstance(value, partial):
        return {"args": value.args, "keywords": value.keywords}
    if dataclasses.is_dataclass(value):  # also those with slots
        return {
            field.name: getattr(value, field.name) for field in dataclasses.fields(value) if hasattr(value, field.name)
        }
    return getattr(value, "__dict__", {})


def _with(value: Any, rest: list[Any], new: int) -> Any:
    """A copy of `value` with `new` where `rest` leads."""
    step, *further = rest
    inner = _with(_parts(value)[step], further, new) if further else new
    if isinstance(value, tuple):
        items = [*value[:step], inner, *value[step + 1 :]]
        make = torch.Size if isinstance(value, torch.Size) else getattr(type(value), "_make", tuple)
        return make(items)
    if isinstance(value, partial):
        parts = {**_parts(value), step: inner}
        return partial(value.func, *parts["args"], **parts["keywords"])
    changed: Any = copy.copy(value)
    if isinstance(value, MutableMapping | list):
        changed[step] = inner
    else:
        object.__setattr__(changed, step, inner)  # also where it is frozen
    return changed
