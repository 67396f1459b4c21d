"""Which versions of other libraries the callbacks know."""

import importlib
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from amsc.errors import SettingsError

__all__ = ["KNOWN", "base_class", "check_known"]

KNOWN = {
    "lightning.pytorch": ((2, 4), (3, 0), "lightning"),
    "pytorch_lightning": ((2, 4), (3, 0), "lightning"),
    "transformers": ((4, 51), (6, 0), "transformers"),
}
"""The lowest version that a callback knows, the lowest that it does not know any more, and the extra of amsc that
installs one."""


def base_class(name: str, *libraries: str) -> Any:
    """The class of that name in the first of these libraries that is installed; `object` where none is, so that what is
    derived from it can be imported, though not made (see `check_known`)."""
    found = next(_installed(libraries), None)
    return object if found is None else getattr(found, name)


def check_known(*libraries: str) -> None:
    """Refuse to work without the first of these libraries that is installed, or with a version that is not known.

    Raises:
        SettingsError: none is installed, or its version is not known.
    """
    library = next(_installed(libraries), None)
    if library is None:
        extra = KNOWN[libraries[0]][2]
        raise SettingsError(f"{' or '.join(libraries)} is not installed; pip install 'amsc[{extra}]'")
    _check_version(library.__name__, str(getattr(library, "__version__", "")))


def _installed(libraries: Iterable[str]) -> Iterator[ModuleType]:
    for name in libraries:
        try:
            yield importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # it is installed, and lacks something itself


def _check_version(name: str, version: str) -> None:
    lowest, beyond, extra = KNOWN[name]
    if not lowest <= _numbers(version) < beyond:
        raise SettingsError(
            f"the callback knows {name} from {_text(lowest)} to below {_text(beyond)}, and {version or 'none'} is "
            f"installed: what it hooks into may be another there. pip install 'amsc[{extra}]', or write the loop by "
            "hand with amsc.trainers.Compression"
        )


def _numbers(version: str) -> tuple[int, ...]:
    """The first two numbers of a version; () where there are none."""
    pieces = version.split(".")[:2]
    return tuple(int(piece) for piece in pieces) if all(piece.isdigit() for piece in pieces) else ()


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
