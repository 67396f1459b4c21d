"""`amsc resume`: go on with a run that was stopped."""

import argparse
from pathlib import Path
from typing import Any

from amsc.cli.console import Console
from amsc.cli.flags import add_object_flags
from amsc.cli.opening import SETTINGS_FILE, named
from amsc.cli.parser import add_command, add_output_flags
from amsc.cli.working import carry_on, payload, show_outcome
from amsc.errors import RunFolderError
from amsc.jobs.reading import so_far
from amsc.jobs.run_folder import refuse_links

__all__ = ["add_parser", "run"]

DESCRIPTION = """\
Go on with a run that was stopped or killed, from its last checkpoint. The run keeps
its settings (settings.toml in its folder), its seed included: on the same machine
it ends as if it had never been stopped.
"""
EXAMPLES = """\
  amsc resume runs/resnet20-20250101-120000
  amsc resume runs/from-python --model my_package.nets:build --data my_package.data:loaders
"""


def add_parser(commands: Any) -> None:
    """Add `resume` to the commands."""
    parser = add_command(
        commands,
        "resume",
        run,
        summary="go on with a run that was stopped",
        description=DESCRIPTION,
        examples=EXAMPLES,
    )
    parser.add_argument("folder", metavar="RUN", type=Path, help="the run folder")
    add_object_flags(parser)
    add_output_flags(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Finish the run, show the outcome, and return 0."""
    folder: Path = args.folder
    if not (folder / SETTINGS_FILE).is_file():
        raise RunFolderError(f"{folder} is not a run folder: it holds no {SETTINGS_FILE}")
    refuse_links(folder)
    console.note(f"{folder}, {so_far(folder)}")
    record = carry_on(named(folder / SETTINGS_FILE, args), folder, console)
    show_outcome(record, folder, console)
    console.json(payload(record, folder))
    return 0
