"""Names of a network's parts, and which of them a glob means. `*` crosses dots: `layer1*` is all of layer1."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

__all__ = [
    "enclosing",
    "holder",
    "is_below",
    "is_in_any",
    "is_inside",
    "is_named",
    "matching",
    "modules_of",
]


def enclosing(name: str) -> tuple[str, ...]:
    """The names of all modules around the part `name`, innermost first, without the network itself."""
    parts = name.split(".")
    return tuple(".".join(parts[:count]) for count in range(len(parts) - 1, 0, -1))


def holder(name: str) -> str:
    """The module that holds the tensor or module `name` ("" for the network itself)."""
    return name.rpartition(".")[0]


def is_below(name: str, module: str) -> bool:
    """Whether the module or tensor `name` lies in `module`, and is not `module` itself."""
    return name.startswith(f"{module}.")


def is_inside(name: str, module: str) -> bool:
    """Whether the module or tensor `name` is `module` or lies in it."""
    return name == module or is_below(name, module)


def is_in_any(name: str, modules: Iterable[str]) -> bool:
    """Whether the module or tensor `name` is one of the `modules` or lies in one."""
    return any(is_inside(name, module) for module in modules)


def modules_of(names: Iterable[str]) -> tuple[str, ...]:
    """The modules that hold these parameters, each once."""
    return tuple(dict.fromkeys(module for name in names for module in reversed(enclosing(name))))


def is_named(name: str, pattern: str) -> bool:
    """Whether the glob matches the part `name` itself or a module around it."""
    return any(fnmatchcase(part, pattern) for part in (name, *enclosing(name)))


def matching(names: Iterable[str], pattern: str) -> tuple[str, ...]:
    """Those of `names` that the glob means: it matches them, or a module around them."""
    return tuple(name for name in names if is_named(name, pattern))
