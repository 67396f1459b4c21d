"""Whole numbers that a module stores, and setting them."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import CodeType, FunctionType
from typing import Any

from torch import nn

__all__ = ["Changes", "Size", "config_sizes", "is_config", "read_names", "set_sizes", "stored_sizes"]

Size = int | tuple[int, ...]
Changes = dict[str, Size]


def stored_sizes(owner: object) -> dict[str, int]:
    """The whole numbers among the attributes of a module or configuration, by name."""
    return {name: value for name, value in vars(owner).items() if type(value) is int}


def set_sizes(module: nn.Module, changes: Mapping[str, Size]) -> None:
    """Set the attributes of `module` to their new values."""
    for name, value in changes.items():
        setattr(module, name, value)


def read_names(module: nn.Module) -> frozenset[str]:
    """The names that the module's methods other than its constructor read, of its own and its base classes."""
    module_type: Any = type(module)
    return _read_by(module_type)


@cache
def _read_by(module_type: type) -> frozenset[str]:
    functions = (
        function
        for kind in module_type.__mro__
        if issubclass(kind, nn.Module) and kind is not nn.Module
        for name, function in vars(kind).items()
        if isinstance(function, FunctionType) and name not in ("__init__", "extra_repr", "__repr__", "reset_parameters")
    )
    return frozenset(name for function in functions for name in _names(inspect.unwrap(function)))


def config_sizes(module: nn.Module) -> dict[str, int]:
    """The whole numbers that the module's methods read from the configuration it holds, by name there."""
    config, read = getattr(module, "config", None), read_names(module)
    if not is_config(config) or "config" not in read:
        return {}
    return {name: value for name in read if type(value := getattr(config, name, None)) is int}


def is_config(config: object) -> bool:
    """Whether this is a configuration as transformers has them."""
    return hasattr(config, "to_dict") and hasattr(config, "__dict__")


def _names(function: Callable[..., object]) -> Iterator[str]:
    codes: list[CodeType] = [function.__code__] if isinstance(function, FunctionType) else []
    while codes:
        code = codes.pop()
        yield from code.co_names
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
