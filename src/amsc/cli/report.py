"""`amsc report`: the page of a run, drawn again from its record, or a page that compares several runs."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amsc.cli.console import Console
from amsc.cli.parser import UsageError, add_command, add_output_flags
from amsc.cli.working import REPORT_FILE
from amsc.errors import RunFolderError
from amsc.jobs.reading import read_record
from amsc.jobs.stages.record import versions
from amsc.report import render, render_comparison
from amsc.storage import write_atomically

__all__ = ["add_parser", "run"]

DESCRIPTION = """\
Draw the report of a run again, from its record.json alone. With several runs, write
a page that compares them: they must be of one dense network on the same data.
"""
EXAMPLES = """\
  amsc report runs/half
  amsc report runs/half runs/third runs/quarter --out comparison.html
"""
COMPARISON_FILE = Path("comparison.html")
OURS = b'<meta name="generator" content="amsc">'
"""Every page of amsc has it: such a file may be written anew."""


def add_parser(commands: Any) -> None:
    """Add `report` to the commands."""
    parser = add_command(
        commands,
        "report",
        run,
        summary="draw a run's report again, or compare runs",
        description=DESCRIPTION,
        examples=EXAMPLES,
    )
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="the folder of a finished run")
    parser.add_argument(
        "--out", metavar="FILE", type=Path, help=f"the page (default: RUN/{REPORT_FILE}, or {COMPARISON_FILE})"
    )
    add_output_flags(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Write the page, say where it is, and return 0."""
    folders: Sequence[Path] = args.runs
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UsageError("a run is named twice: name each folder once")
    records = {folder: read_record(folder, versions()["amsc"]) for folder in folders}
    if len(folders) == 1:
        page, file = render(records[folders[0]]), args.out or folders[0] / REPORT_FILE
    else:
        named = {name: records[folder] for name, folder in zip(_names(folders), folders, strict=True)}
        page, file = render_comparison(named), args.out or COMPARISON_FILE
    _check_free(file)
    write_atomically(file, page.encode(), make_folder=True)
    console.show(f"report: {file}")
    console.json({"report": str(file), "runs": [str(folder) for folder in folders]})
    return 0


def _names(folders: Sequence[Path]) -> list[str]:
    """What the runs are called: the last part of their folder, or all of it where these are the same."""
    short = [folder.resolve().name for folder in folders]
    return short if len(set(short)) == len(short) else [str(folder) for folder in folders]


def _check_free(file: Path) -> None:
    """Refuse to write over what is no page of amsc.

    Raises:
        RunFolderError: it is something else.
    """
    if file.is_dir():
        raise RunFolderError(f"{file} is a folder; name a file: --out {file / COMPARISON_FILE}")
    if file.exists() and OURS not in file.read_bytes()[:20_000] and file.name != REPORT_FILE:
        raise RunFolderError(f"{file} exists already, and is no report of amsc: name another --out")
