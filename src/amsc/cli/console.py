"""Where words, tables and the one JSON object go."""

import contextlib
import dataclasses
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO

from rich import box
from rich.console import Console as RichConsole
from rich.table import Table
from rich.text import Text

from amsc.progress import NoProgress, Progress
from amsc.words.listeners import listening_on

__all__ = ["Console"]

WIDTH_IN_FILES = 140


class Console:
    """Results go to standard output, notes and errors to standard error.

    With `as_json`, standard output takes one JSON object and nothing else; results in words then go to standard
    error as well. With `quiet`, notes and progress are left out, and results in words too if there is JSON.
    """

    def __init__(self, stdout: TextIO, stderr: TextIO, *, as_json: bool = False, quiet: bool = False) -> None:
        self.stdout, self.as_json, self.quiet = stdout, as_json, quiet
        self.notes = _rich(stderr)
        self.results = self.notes if as_json else _rich(stdout)

    def note(self, text: str) -> None:
        """Words on the way; left out when quiet."""
        if not self.quiet:
            _print(self.notes, text)

    def show(self, text: str) -> None:
        """A result in words."""
        if not (self.quiet and self.as_json):
            _print(self.results, text)

    @property
    def width(self) -> int:
        """Characters in a line of the results."""
        return self.results.width

    def table(
        self, title: str, columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, note: str = ""
    ) -> None:
        """A result as a table, and under it a note; a column whose name begins with ">" is aligned to the right and not
        broken, one whose name begins with "." is not broken, but cut off where the terminal is too narrow."""
        if self.quiet and self.as_json:
            return
        table = Table(title=Text(title, style="bold") if title else None, title_justify="left", box=box.SIMPLE_HEAD)
        for column in columns:
            table.add_column(
                Text(column.lstrip(">.")),
                justify="right" if column.startswith(">") else "left",
                no_wrap=column.startswith((">", ".")),
                overflow="ellipsis" if column.startswith(".") else "fold",
            )
        for row in rows:
            table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
        self.results.print(table)
        if note:
            self.show(note)

    @contextlib.contextmanager
    def progress(self) -> Iterator[Progress]:
        """A listener for the time of a run, which shows among the notes how far it is."""
        if self.quiet:
            yield NoProgress()
        else:
            with listening_on(self.notes) as listener:
                yield listener

    def error(self, text: str) -> None:
        """One line on standard error."""
        _print(self.notes, f"error: {'; '.join(filter(None, map(str.strip, text.splitlines())))}")

    def warning(self, text: str) -> None:
        """Something that probably is not what was wanted, in one line on standard error, also when quiet."""
        _print(self.notes, f"warning: {text}")

    def json(self, payload: Mapping[str, Any]) -> None:
        """The one JSON object, if JSON was asked for; numbers that JSON does not have become null."""
        if self.as_json:
            self.stdout.write(json.dumps(_plain(payload), indent=2, allow_nan=False) + "\n")
            self.stdout.flush()


def _rich(stream: TextIO) -> RichConsole:
    return RichConsole(file=stream, width=None if stream.isatty() else WIDTH_IN_FILES, highlight=False)


def _print(console: RichConsole, text: str) -> None:
    console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
