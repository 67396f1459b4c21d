"""Calling a function of the user's that is named as `package.module:function`."""

import contextlib
import importlib
import inspect
import os
import sys
from collections.abc import Iterator
from typing import Any

from amsc.errors import AmscError
from amsc.words.nearest import nearest

__all__ = ["call_function"]


def call_function(reference: str, error: type[AmscError]) -> Any:
    """What the function `reference`, written `package.module:function`, returns when called without arguments.

    Modules are looked up from the current folder first.

    Raises:
        error: the module or function is not there, or fails; the original exception is the cause.
    """
    module_name, _, function_name = reference.partition(":")
    with _current_folder_first():
        try:
            module = importlib.import_module(module_name)
        except Exception as failure:  # the user's module may fail in any way
            raise error(
                f"cannot import {module_name!r} for {reference!r} from {os.getcwd()} or the installed packages:"
                f" {type(failure).__name__}: {failure}"
            ) from failure
        function = getattr(module, function_name, None)
        if not callable(function):
            raise error(f"module {module_name!r} has no function {function_name!r}{_hint(function_name, module)}")
        try:
            return function()
        except Exception as failure:  # and so may the user's function
            hint = "; it is called without arguments" if _needs_arguments(function) else ""
            raise error(f"{reference}() failed: {type(failure).__name__}: {failure}{hint}") from failure


def _needs_arguments(function: Any) -> bool:
    try:
        inspect.signature(function).bind()
    except TypeError:
        return True
    except ValueError:  # it has no signature
        return False
    return False


def _hint(name: str, module: object) -> str:
    return nearest(name, [each for each in dir(module) if not each.startswith("_")])


@contextlib.contextmanager
def _current_folder_first() -> Iterator[None]:
    before = list(sys.path)
    sys.path.insert(0, os.getcwd())
    # modules written since the interpreter last looked
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before
