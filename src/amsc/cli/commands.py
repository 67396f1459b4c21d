"""`amsc COMMAND ...`: parse, run, and turn every failure into one line and an exit code."""

import contextlib
import importlib.metadata
import os
import platform
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import shtab
import torch

from amsc.cli import INTERRUPTED, bench, compress, demo, export, inspect, measure, path, pick, report, resume, scan
from amsc.cli.console import Console
from amsc.cli.flags import add_output_flags
from amsc.cli.parser import Parser, parse
from amsc.errors import AmscError, AmscWarning, RunFolderError
from amsc.models import ZOO

__all__ = ["build_parser", "main"]

DESCRIPTION = """\
Structured compression of trained PyTorch networks: amsc learns which layers and
filters a network needs, removes the others for good, proves that the removal
changed nothing, and fine-tunes what is left.
"""
EPILOG = """\
MODEL is torchvision:NAME, timm:NAME, hf:NAME, package.module:function, or one of
{networks}.
DATA is digits, parquet:PATH, folder:PATH, or package.module:function.

exit codes: 0 done, 1 unexpected, 2 usage or settings, 3 model or its inputs, 4 data,
5 target, 6 cut or verification, 7 training, 8 run folder, 9 demo failed, 130 stopped.

`amsc COMMAND --help` explains a command. To begin: amsc demo
"""


def build_parser() -> Parser:
    """The whole command line."""
    parser = Parser(prog="amsc", description=DESCRIPTION, epilog=EPILOG.format(networks=", ".join(ZOO)))
    parser.add_argument("--version", action="version", version=_version())
    shtab.add_argument_to(parser, "--print-completion", help="print the completions of a shell, and stop")
    add_output_flags(parser, default=False)
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")
    for command in (demo, inspect, scan, compress, path, pick, resume, measure, report, bench, export):
        command.add_parser(commands)
    _complete_files(parser)
    for command_parser in commands.choices.values():
        _complete_files(command_parser)
    return parser


def _complete_files(parser: Parser) -> None:
    """Let shells complete what names a file or a folder."""
    kinds = {"FILE": shtab.FILE, "FOLDER": shtab.DIRECTORY, "RUN": shtab.DIRECTORY}
    for action in parser._actions:
        if action.metavar in kinds:
            action.complete = kinds[action.metavar]  # type: ignore[attr-defined] # shtab looks for it


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; never raises for what a user may do wrong."""
    words = list(sys.argv[1:] if argv is None else argv)
    stdout, as_json = sys.stdout, "--json" in words
    console = Console(stdout, sys.stderr, as_json=as_json, quiet="--quiet" in words)
    with contextlib.ExitStack() as stack:
        if as_json:  # whatever a model or a data set of the user's prints must not get between
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        stack.enter_context(_warnings_in_words(console))
        try:
            return _run(words, console)
        except SystemExit as stop:  # --help and --version, and rich when nobody reads any more (`amsc ... | head`)
            return int(stop.code or 0)
        except BrokenPipeError:  # nobody reads any more
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # which Python flushes at its end
            return 0
        except (Exception, KeyboardInterrupt) as error:
            if "--debug" in words:
                traceback.print_exc(file=sys.stderr)
            return _failed(error, console)


@contextlib.contextmanager
def _warnings_in_words(console: Console) -> Iterator[None]:
    """Warnings of amsc are one line, without the place in its code; those of others look as ever."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message: Any, category: Any, *place: Any, **options: Any) -> None:
            if issubclass(category, AmscWarning):
                console.warning(str(message))
            else:
                usual(message, category, *place, **options)

        warnings.showwarning = show
        yield


def _run(words: Sequence[str], console: Console) -> int:
    parser = build_parser()
    args = parse(parser, words)
    if "run" not in args:
        parser.print_help(sys.stderr)
        return 2
    return int(args.run(args, console))


def _failed(error: BaseException, console: Console) -> int:
    code, text = _words(error)
    console.error(text)
    console.json({"error": {"kind": type(error).__name__, "message": text}, "exit_code": code})
    return code


def _words(error: BaseException) -> tuple[int, str]:
    """Exit code and message for what ended a command."""
    if isinstance(error, AmscError):
        return error.exit_code, str(error)
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, str(error) or "stopped"
    if isinstance(error, OSError):
        return RunFolderError.exit_code, f"cannot read or write: {error}"
    return 1, f"unexpected {type(error).__name__}: {error} (run again with --debug for the traceback)"


def _version() -> str:
    try:
        version = importlib.metadata.version("amsc")
    except importlib.metadata.PackageNotFoundError:
        version = "(not installed)"
    return f"amsc {version}, torch {torch.__version__}, Python {platform.python_version()}"
