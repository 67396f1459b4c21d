"""Whatever a model's forward returns, looked into: the one place that knows which tensors and numbers a caller sees."""

import copy
import enum
import functools
import inspect
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, MappingView, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, is_dataclass
from datetime import date, time, timedelta, tzinfo
from numbers import Number
from pathlib import PurePath
from re import Pattern
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from amsc.errors import ModelError

__all__ = ["NO_STATE", "OwnState", "Seen", "look_into", "with_tensors"]

MOST_OBJECTS, DEEPEST = 100_000, 1000
"""What has more parts, or one in the other, is no output: a graph of objects that leads everywhere, or has no end."""

Leaf = Tensor | np.ndarray | int | float | complex
CONSTANTS = (str, bytes, types.NoneType, enum.Enum, torch.dtype, torch.device, torch.layout, torch.memory_format, range)
"""Compared as they are."""
WITHOUT_TENSORS = (
    *(type, types.ModuleType, types.EllipsisType, types.NotImplementedType),
    *(date, time, timedelta, tzinfo, PurePath, Pattern, bytearray, torch.Generator),
    nn.Module,  # a part of the model that is being cut; what it keeps could be read from the model as well
)
"""Left alone."""
FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial)
CONTAINERS = (Mapping, Sequence, AbstractSet, MappingView)
BUILT_IN = (object, tuple, list, dict, set, frozenset, types.SimpleNamespace)
"""Classes in C of whose instances everything can be reached."""
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: the class was made by a class statement


@dataclass(frozen=True)
class OwnState:
    """What a model hands itself from call to call, such as the key-value cache of a language model: objects that a
    forward in it takes back, as an optional argument (None by default) of this name or class.

    Mappings, sequences and dataclasses are never taken for it."""

    names: frozenset[str] = frozenset()
    kinds: tuple[type, ...] = ()

    @classmethod
    def of(cls, model: nn.Module) -> "OwnState":
        """The optional arguments of all forwards in the model."""
        forwards = dict.fromkeys(type(module).forward for module in model.modules())
        found = [item for forward in forwards for item in _optional_arguments(forward).items()]
        kinds = dict.fromkeys(kind for _, kinds in found for kind in kinds)
        return cls(frozenset(name for name, _ in found), tuple(kinds))

    def holds(self, key: str, value: Any) -> bool:
        """Whether `value`, the part called `key` of what holds it, is such an object."""
        if isinstance(value, CONTAINERS) or is_dataclass(value):
            return False
        return key in self.names or isinstance(value, self.kinds)


NO_STATE = OwnState()


@functools.cache
def _optional_arguments(forward: Any) -> dict[str, tuple[type, ...]]:
    """The classes that the annotation of each argument with the default None names."""
    try:
        parameters = inspect.signature(forward).parameters.values()
    except (TypeError, ValueError):  # a forward implemented in C has no signature
        return {}
    try:
        hints = typing.get_type_hints(forward)
    except (NameError, TypeError, AttributeError):  # annotations may name what is only imported for type checkers
        hints = {}
    return {p.name: _classes(hints.get(p.name)) for p in parameters if p.default is None}


def _classes(hint: Any) -> tuple[type, ...]:
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    return tuple(kind for kind in options if isinstance(kind, type) and _tells_instances(kind))


def _tells_instances(kind: type) -> bool:
    """Whether being an instance of it says something: neither all objects are, nor is that a matter of their names."""
    is_any = kind in (object, types.NoneType, Any)
    return not is_any and not getattr(kind, "_is_protocol", False) and not typing.is_typeddict(kind)


@dataclass(frozen=True)
class Seen:
    """What a caller sees in an output, by where it stands in it, such as "output[0]" or "output.logits".

    `leaves` are tensors, arrays of numpy and numbers, `constants` strings, None, enums, dtypes and the like.
    `state` was not looked into, since it is for the model itself (`OwnState`): the name of each object's class."""

    leaves: dict[str, Leaf] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)
    state: dict[str, str] = field(default_factory=dict)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors among the leaves (torch's: nobody has seen how an array came about)."""
        return {name: leaf for name, leaf in self.leaves.items() if isinstance(leaf, Tensor)}


@dataclass(frozen=True, eq=False)
class _Place:
    """A `value` in the output: where it stands, what it is called in what holds it, and the place of that."""

    name: str
    key: str
    value: Any
    holder: "_Place | None" = None
    depth: int = 0

    def inner(self, label: str, value: Any) -> "_Place":
        return _Place(self.name + label, label.strip(".[]'\""), value, self, self.depth + 1)

    def is_in_itself(self) -> bool:
        """Whether one of the places around it is of the same object."""
        place = self.holder
        while place is not None and place.value is not self.value:
            place = place.holder
        return place is not None


def look_into(output: Any, own: OwnState = NO_STATE) -> Seen:
    """All tensors, numbers and constants in what a forward returned, in order.

    Looks into mappings, sequences and sets of any class, named tuples, nodes that torch's pytree knows (with keys or
    without), and the attributes (`__dict__` and `__slots__`) of other objects, however they are nested; into cycles
    once. The model's `own` state is passed over.

    Raises:
        ModelError: it holds something that could hide tensors and cannot be looked into.
    """
    seen, num_objects = Seen(), 0
    places = [_Place("output", "", output)]
    while places:
        place = places.pop()
        if _is_noted(place, seen) or place.is_in_itself():
            continue
        if own.holds(place.key, place.value):
            seen.state[place.name] = type(place.value).__name__
            continue
        num_objects += 1
        if num_objects > MOST_OBJECTS or place.depth > DEEPEST:
            raise ModelError(
                f"the output of the model leads to more than {MOST_OBJECTS:,} objects, or {DEEPEST:,} in one another,"
                f" the last at {place.name[:200]} (of class {type(place.value).__name__}); return the tensors alone, in"
                " a tuple or dict"
            )
        places += [place.inner(label, value) for label, value in reversed(_parts(place))]
    return seen


def with_tensors(output: Any, new: Mapping[str, Tensor], own: OwnState = NO_STATE) -> Any:
    """A copy of what a forward returned with `new` tensors in some places, by the names that `look_into` gives them;
    all other tensors are those of the output itself.

    Raises:
        ModelError: it cannot be looked into or copied, or its copy does not hold the new tensors.
    """
    seen = look_into(output, own)
    memo: dict[int, Any] = {id(tensor): new.get(name, tensor) for name, tensor in seen.tensors.items()}
    try:
        copied = copy.deepcopy(output, memo)
    except Exception as error:  # whatever the output's own __deepcopy__ or __reduce__ raises
        raise ModelError(f"the output ({type(output).__name__}) cannot be copied: {error}") from error
    found = look_into(copied, own).tensors
    if any(found.get(name) is not tensor for name, tensor in new.items()):
        raise ModelError(f"the output ({type(output).__name__}) does not let its tensors be replaced when it is copied")
    return copied


def _is_noted(place: _Place, seen: Seen) -> bool:
    """Whether nothing of it is left to look into, once its value is noted."""
    value = place.value
    is_numeric = isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufc"
    if is_numeric or isinstance(value, Tensor | int | float | complex):
        seen.leaves[place.name] = value
    elif isinstance(value, Number):  # Decimal, Fraction
        seen.leaves[place.name] = float(value)  # type: ignore[arg-type]
    elif isinstance(value, CONSTANTS):
        seen.constants[place.name] = value
    else:
        return isinstance(value, WITHOUT_TENSORS) or (isinstance(value, FUNCTIONS) and _holds_nothing(value))
    return True


def _holds_nothing(function: Any) -> bool:
    """Whether there is nothing but code in a function, or a method of a module."""
    if isinstance(function, types.MethodType | types.BuiltinFunctionType):
        return isinstance(function.__self__, nn.Module | type | types.ModuleType | None)
    is_plain = isinstance(function, types.FunctionType) and not function.__closure__ and not vars(function)
    return is_plain and not function.__defaults__ and not function.__kwdefaults__


Part = tuple[str, Any]
"""What a part is called (".scores", "['scores']", "[0]"), and its value."""


def _parts(place: _Place) -> list[Part]:
    """What a value is made of.

    Raises:
        ModelError: that cannot be told.
    """
    value = place.value
    node = pytree.SUPPORTED_NODES.get(type(value))
    if node is not None and type(value).__module__ not in ("builtins", "collections"):
        return _node_parts(value, node)
    parts = _items(value)
    is_open = _has_attributes(type(value)) and not isinstance(value, FUNCTIONS)
    if parts is None and not is_open:
        raise ModelError(
            f"{place.name} (what the model's forward returned) is of class"
            f" {type(value).__module__}.{type(value).__qualname__}, which cannot be looked into and may hold tensors:"
            " nobody could tell whether a cut changes them. Return the tensors themselves, in a tuple, dict or"
            " dataclass (a wrapper around the model can do that)"
        )
    known = {id(part) for _, part in parts or ()}
    attributes = _attributes(value) if is_open else ()
    return [*(parts or ()), *((label, part) for label, part in attributes if not _is_known(part, known))]


def _node_parts(value: Any, node: Any) -> list[Part]:
    """The children of a pytree node, in the order of its flattening."""
    if node.flatten_with_keys_fn is not None:
        pairs, _ = node.flatten_with_keys_fn(value)
        return [(pytree.keystr((key,)), child) for key, child in pairs]
    children, _ = node.flatten_fn(value)
    items = _items(value) or []
    if len(items) == len(children) and all(a[1] is b for a, b in zip(items, children, strict=True)):
        return items
    return [(f"[{index}]", child) for index, child in enumerate(children)]


def _items(value: Any) -> list[Part] | None:
    """What stands in a container; None of another object."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        plain = (str, int, float, bool, types.NoneType, enum.Enum, torch.dtype)
        labels = [f"[{key!r}]" if isinstance(key, plain) else f"[key {i}]" for i, key in enumerate(value)]
        keys = [(f"{{key {i}}}", key) for i, key in enumerate(value) if not isinstance(key, plain)]
        return [*zip(labels, value.values(), strict=True), *keys]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return [(f".{name}", part) for name, part in zip(value._fields, value, strict=True)]
    if isinstance(value, AbstractSet):
        in_order = sorted(value, key=_rank) if len(value) > 1 else value
        return [(f"{{{index}}}", part) for index, part in enumerate(in_order)]
    if isinstance(value, Sequence | MappingView):
        elements: Iterable[Any] = value  # type: ignore[assignment]
        return [(f"[{index}]", part) for index, part in enumerate(elements)]
    return None


def _rank(element: Any) -> Any:
    """The same order of the elements of a set in two networks that give the same: by what they hold."""
    seen = look_into(element)
    return [(name, repr(value)) for name, value in seen.constants.items()], [
        (name, str(getattr(leaf, "shape", "")), _sum(leaf)) for name, leaf in seen.leaves.items()
    ]


def _sum(leaf: Leaf) -> float:
    if not isinstance(leaf, Tensor):
        return float(np.abs(leaf).sum())
    has_values = leaf.layout != torch.strided or leaf.untyped_storage().device.type != "meta"
    return float(leaf.abs().sum()) if has_values else 0.0


def _has_attributes(kind: type) -> bool:
    """Whether all that its instances hold can be reached: no class that it inherits from is written in C, and keeps its
    own counsel."""
    written_in_c = [cls for cls in kind.__mro__ if not cls.__flags__ & _HEAP_TYPE]
    has_own = any(name in vars(cls) for cls in kind.__mro__ for name in ("__dict__", "__slots__"))
    return has_own and all(cls in BUILT_IN or issubclass(cls, CONTAINERS) for cls in written_in_c)


def _attributes(value: Any) -> Iterator[Part]:
    """The attributes that an object holds itself, those in slots too."""
    for name, part in dict(getattr(value, "__dict__", {})).items():
        yield f".{name}", part
    for cls in type(value).__mro__:
        slots = vars(cls).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            is_private = name.startswith("__") and not name.endswith("__")
            known_as = f"_{cls.__name__.lstrip('_')}{name}" if is_private else name
            if name not in ("__dict__", "__weakref__") and hasattr(value, known_as):
                yield f".{known_as}", getattr(value, known_as)


def _is_known(part: Any, known: set[int]) -> bool:
    """Whether it is one of the parts that were found before, or a plain container of nothing but those."""
    if id(part) in known:
        return True
    inner = list(part.values()) if type(part) is dict else part if type(part) in (list, tuple) else []
    return bool(inner) and all(id(each) in known for each in inner)
