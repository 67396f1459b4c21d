"""An argument parser whose errors are exceptions and name the nearest command or flag."""

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from amsc.errors import AmscError
from amsc.words.nearest import nearest

__all__ = ["HelpFormatter", "Parser", "UsageError", "add_command", "add_output_flags", "parse"]


class UsageError(AmscError):
    """What was typed is not a command of amsc."""

    exit_code = 2


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Descriptions and examples as they are written; flags in one column that leaves room for words."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, **{"max_help_position": 32, **options})


class Parser(argparse.ArgumentParser):
    """argparse without abbreviations; raises UsageError where argparse would print and exit."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"formatter_class": HelpFormatter, "allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found, with the nearest of the choices that it names."""
        choice = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        hint = nearest(choice[1], re.findall(r"[\w.-]+", choice[2])) if choice else ""
        raise UsageError(f"{message}{hint} (see {self.prog} --help)")


def add_command(
    commands: "argparse._SubParsersAction[Parser]",
    name: str,
    run: Any,
    *,
    summary: str,
    description: str,
    examples: str,
) -> Parser:
    """A new command with its help; `run(args, console)` returns the exit code."""
    parser = commands.add_parser(name, help=summary, description=description, epilog=f"examples:\n{examples}")
    parser.set_defaults(run=run, parser=parser)
    return parser


def add_output_flags(parser: argparse.ArgumentParser, *, default: Any = argparse.SUPPRESS) -> None:
    """--json, --quiet, --debug. Added to `amsc` and to each command, so that they may stand on either side."""
    group = parser.add_argument_group("output")
    group.add_argument(
        "--json",
        action="store_true",
        default=default,
        help="one JSON object on standard output, words on standard error",
    )
    group.add_argument(
        "--quiet", action="store_true", default=default, help="no progress and no notes, only the result"
    )
    group.add_argument("--debug", action="store_true", default=default, help="show the traceback of an error")


def parse(parser: Parser, words: Sequence[str]) -> argparse.Namespace:
    """The parsed arguments of the chosen command.

    Raises:
        UsageError: a word or flag is unknown, missing or malformed.
    """
    args, extra = parser.parse_known_args(words)
    if extra:
        command: Parser = getattr(args, "parser", None) or parser
        flag = extra[0].partition("=")[0]
        what = "flag" if flag.startswith("-") else "argument"
        hint = nearest(flag, command._option_string_actions) if what == "flag" else ""
        raise UsageError(f"unknown {what} {flag}{hint} (see {command.prog} --help)")
    return args
