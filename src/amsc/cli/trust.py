"""What a file may not say: which functions are called. Only who types a command decides on code that it runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from amsc.cli.parser import UsageError
from amsc.models import is_function
from amsc.settings import RunSettings

__all__ = ["functions_in", "refuse_functions"]

PARTS = ("model", "data", "task")
READERS = ("parquet", "folder")
"""What names data of a path; anything else with a colon is a function."""


def functions_in(run: RunSettings) -> dict[str, str]:
    """What in `run` names functions, `package.module:function`, by the part that they make."""
    found = {name: getattr(run, name) or "" for name in PARTS}
    return {name: value for name, value in found.items() if _is_function(name, value)}


def _is_function(part: str, value: str) -> bool:
    if part == "model":
        return is_function(value)
    return ":" in value and not (part == "data" and value.partition(":")[0] in READERS)


def refuse_functions(
    file: Path, run: RunSettings, given: Mapping[str, Any], parts: Sequence[str] = PARTS, *, model: str = "--model "
) -> None:
    """Refuse a run, read from `file`, in which functions are named that the command line does not name again; `model`
    is what stands before the network's there.

    Raises:
        UsageError: there are some; the message has the words to type.
    """
    named = {part: name for part, name in functions_in(run).items() if part in parts and not given.get(part)}
    if named:
        words = " ".join((model if part == "model" else f"--{part} ") + name for part, name in named.items())
        raise UsageError(
            f"{file} names {'functions' if len(named) > 1 else 'a function'} of Python to call, and a file may not: it "
            f"could be a stranger's. If you know {'them' if len(named) > 1 else 'it'}, say so yourself: {words}"
        )
