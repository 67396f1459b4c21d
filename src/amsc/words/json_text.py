"""Frozen values as JSON text, and back.

Any frozen dataclass made of numbers, strings, None, tuples, dictionaries and other such dataclasses
can be written with `to_json` and read with `from_json`; the type annotations are the schema.
"""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from amsc.errors import AmscError

__all__ = ["from_json", "to_json"]

T = TypeVar("T")


def to_json(record: Any, *, indent: int | None = None) -> str:
    """The record (a dataclass instance) as JSON text."""
    return json.dumps(dataclasses.asdict(record), indent=indent)


def from_json(kind: type[T], text: str) -> T:
    """A record of the dataclass `kind` from what `to_json` wrote.

    Raises:
        AmscError: the text is not JSON or does not have the fields of `kind`.
    """
    try:
        return typing.cast(T, _build(kind, json.loads(text)))
    except (TypeError, KeyError, ValueError) as error:
        raise AmscError(f"expected a saved {kind.__name__}, but the JSON does not fit: {error}") from error


def _build(kind: Any, value: Any) -> Any:
    """`value`, parsed JSON, as an instance of the annotation `kind`."""
    if kind is Any:
        return value
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        inner = [a for a in arguments if a is not type(None)]
        if len(inner) == 1:
            return _build(inner[0], value)
        if not isinstance(value, (*inner, int) if float in inner else tuple(inner)):
            raise ValueError(f"expected {' or '.join(a.__name__ for a in inner)}, got {value!r}")
        return value
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return tuple(_build(arguments[0], v) for v in value)
        return tuple(_build(a, v) for a, v in zip(arguments, value, strict=True))
    if origin in (dict, Mapping) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return {k: _build(arguments[1], v) for k, v in value.items()}
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        unknown = set(value) - {f.name for f in dataclasses.fields(kind)}
        if unknown:
            raise ValueError(f"unknown fields {sorted(unknown)}")
        return kind(**{name: _build(hints[name], v) for name, v in value.items()})  # type: ignore[operator]
    return kind(value) if kind is float else value
