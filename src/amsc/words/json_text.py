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

__all__ = ["UnknownFieldsError", "from_json", "plain_json", "to_json"]

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
        return typing.cast(T, _build(kind, plain_json(text), ""))
    except (TypeError, KeyError, ValueError) as error:
        raise AmscError(f"expected a saved {kind.__name__}, but the JSON does not fit: {error}") from error


def plain_json(text: str) -> Any:
    """What JSON text says, as dictionaries, lists, text and numbers.

    Raises:
        ValueError: it is not JSON, or nested more deeply than `DEEPEST`.
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return _shallow(value)


DEEPEST = 50
"""Levels of lists and objects in JSON; what amsc writes has fewer than twenty."""


def _shallow(value: Any) -> Any:
    """The value, if it is not nested too deeply."""
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for outer in level if isinstance(outer, dict | list) for inner in _inside(outer)]
        if not level:
            return value
    raise ValueError("it is nested too deeply")


def _inside(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value


def _build(kind: Any, value: Any, place: str) -> Any:
    """`value`, parsed JSON, as an instance of the annotation `kind`; `place` says where in the whole it stands."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _one_of(arguments, value, place)
    if origin is tuple:
        return _tuple(arguments, value, place)
    if origin in (dict, Mapping) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        _expect(value, dict, "an object", place)
        return {key: _build(arguments[1], item, f"{place}[{key!r}]") for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        return _record(kind, value, place)
    if kind in PLAIN:
        _expect(value, *PLAIN[kind], place)
        return float(value) if kind is float else value
    return value


PLAIN: Mapping[Any, tuple[Any, str]] = {
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
    str: (str, "text"),
    bool: (bool, "true or false"),
}


def _expect(value: Any, kinds: Any, words: str, place: str) -> None:
    """Refuse what is of another kind; Python counts true as a number."""
    if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
        raise ValueError(f"{place.removeprefix('.') or 'all of it'}: expected {words}, got {_shown(value)}")


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


MOST_SHOWN = 60
"""Characters of a value in a message."""


def _one_of(kinds: tuple[Any, ...], value: Any, place: str) -> Any:
    """`value` as one of several kinds, of which None may be one."""
    if value is None and type(None) in kinds:
        return None
    inner = [kind for kind in kinds if kind is not type(None)]
    if len(inner) == 1:
        return _build(inner[0], value, place)
    allowed = tuple(inner) if float not in inner else (*inner, int)
    _expect(value, allowed, " or ".join(kind.__name__ for kind in inner), place)
    return value


def _tuple(kinds: tuple[Any, ...], value: Any, place: str) -> tuple[Any, ...]:
    _expect(value, list, "a list", place)
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise ValueError(f"{place.removeprefix('.')}: expected {len(kinds)} entries, got {len(value)}")
    return tuple(_build(kind, item, f"{place}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True)))


def _record(kind: Any, value: Any, place: str) -> Any:
    """An instance of the dataclass `kind`."""
    _expect(value, dict, f"the fields of a {kind.__name__}", place)
    where = f" in {place.removeprefix('.')}" if place else ""
    hints, fields = typing.get_type_hints(kind), dataclasses.fields(kind)
    if unknown := sorted(set(value) - {field.name for field in fields}):
        raise UnknownFieldsError(f"unknown fields {unknown}{where}")
    nothing = dataclasses.MISSING
    needed = {f.name for f in fields if f.init and f.default is nothing and f.default_factory is nothing}
    if missing := sorted(needed - set(value)):
        raise ValueError(f"missing fields {missing}{where}")
    return kind(**{name: _build(hints[name], item, f"{place}.{name}") for name, item in value.items()})


class UnknownFieldsError(ValueError):
    """There is something that this version of amsc does not know, as in files of a newer one."""
