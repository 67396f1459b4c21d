"""Whole numbers that a module stores, and setting them."""

from collections.abc import Iterator, Mapping
from types import CodeType, FunctionType

from torch import nn

__all__ = ["Changes", "Size", "read_names", "set_sizes", "stored_sizes"]

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
    functions = (
        function
        for kind in type(module).__mro__
        if issubclass(kind, nn.Module) and kind is not nn.Module
        for name, function in vars(kind).items()
        if isinstance(function, FunctionType) and name not in ("__init__", "extra_repr", "__repr__", "reset_parameters")
    )
    return frozenset(name for function in functions for name in _names(getattr(function, "__wrapped__", function)))


def _names(function: FunctionType) -> Iterator[str]:
    codes: list[CodeType] = [function.__code__]
    while codes:
        code = codes.pop()
        yield from code.co_names
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
