"""A page of words: a title, lines and tables, as plain text for a terminal and as HTML for a notebook."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Page", "Section", "as_html", "as_text", "first_rows"]

WIDEST = 72
"""Of a cell in plain text; what is longer is cut off."""


@dataclass(frozen=True)
class Section:
    """A table. A column whose name begins with ">" is aligned to the right. The lines of
    `note` stand under it."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Page:
    """What a value says of itself: `title` in one line, more in `lines`, the rest in tables; `more` ends it."""

    title: str
    lines: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()
    more: str = ""


def first_rows(columns: Sequence[str], rows: Sequence[tuple[str, ...]], most: int, what: str) -> tuple[Section, ...]:
    """A section of the first `most` rows, with a note on how many more of `what` there are; none if there is no row."""
    hidden = len(rows) - most
    note = f"and {hidden} more {what}" if hidden > 0 else ""
    return (Section(tuple(columns), tuple(rows[:most]), note),) if rows else ()


def as_text(page: Page) -> str:
    """The page in lines of aligned text; several tables have an empty line before each."""
    lines = [page.title, *(f"  {line}" for line in page.lines)]
    for section in page.sections:
        lines += [""] if len(page.sections) > 1 else []
        lines += [f"  {line}" for line in _table_lines(section)]
    return "\n".join([*lines, *([f"  {page.more}"] if page.more else [])])


def _table_lines(section: Section) -> list[str]:
    table = [[_shortened(cell) for cell in row] for row in (_names(section), *section.rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(section.columns))]
    is_number = [column.startswith(">") for column in section.columns]
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, is_number, strict=True)
        ).rstrip()
        for row in table
    ]
    return [*lines, *section.note.splitlines()]


def _names(section: Section) -> tuple[str, ...]:
    return tuple(column.lstrip(">") for column in section.columns)


def _shortened(cell: str) -> str:
    cell = " ".join(cell.split())
    return cell if len(cell) <= WIDEST else f"{cell[: WIDEST - 1]}…"


def as_html(page: Page) -> str:
    """The page as a piece of HTML; all text is escaped."""
    parts = [f"<p><strong>{escape(page.title)}</strong></p>"]
    parts += [f"<p>{escape(line)}</p>" for line in page.lines]
    for section in page.sections:
        parts += [_table_html(section), *(f"<p>{escape(line)}</p>" for line in section.note.splitlines())]
    parts += [f"<p><em>{escape(page.more)}</em></p>"] if page.more else []
    return f"<div>{''.join(parts)}</div>"


def _table_html(section: Section) -> str:
    styles = ["right" if column.startswith(">") else "left" for column in section.columns]
    head = "".join(
        f'<th style="text-align: {style}">{escape(name)}</th>'
        for name, style in zip(_names(section), styles, strict=True)
    )
    rows = (
        "".join(f'<td style="text-align: {style}">{escape(cell)}</td>' for cell, style in zip(row, styles, strict=True))
        for row in section.rows
    )
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
