"""`amsc COMMAND ...`: parse, run, and turn every failure into one line and an exit code."""

import contextlib
import importlib
import importlib.metadata
import os
import platform
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import shtab

from amsc.cli.console import Console
from amsc.cli.parser import Parser, add_output_flags, parse
from amsc.cli.stopping import quiet_stop, stop_code
from amsc.errors import AmscError, AmscWarning, RunFolderError
from amsc.stopping import stoppable

__all__ = ["COMMANDS", "EPILOG", "build_parser", "main"]

DESCRIPTION = """\
Structured compression of trained PyTorch networks: amsc learns which layers and
filters a network needs, removes the others for good, proves that the removal
changed nothing, and fine-tunes what is left.
"""
EPILOG = """\
MODEL is torchvision:NAME, timm:NAME, hf:NAME, package.module:function, or one of
digits_resnet, resnet20, resnet32, resnet44, resnet56, resnet110, vgg16, densenet40,
resnet50.
DATA is digits, parquet:PATH, folder:PATH, or package.module:function.

exit codes: 0 done, 1 unexpected, 2 usage or settings, 3 model or its inputs, 4 data,
5 target, 6 cut or verification, 7 training, 8 run folder, 9 demo failed, 10 processes
that differ, 130 stopped by Ctrl-C, 143 by SIGTERM.

`amsc COMMAND --help` explains a command. To begin: amsc demo
"""


COMMANDS: Mapping[str, str] = {
    "demo": "the whole job on embedded data, in minutes",
    "inspect": "what can go, what cannot and why",
    "scan": "the frontier in a minute, without training",
    "compress": "compress a network to a budget",
    "path": "walk the path once, for many budgets",
    "pick": "another budget from a walked path",
    "resume": "go on with a run that was stopped",
    "measure": "what a network costs on this machine",
    "report": "draw a run's report again, or compare runs",
    "bench": "compare methods by one recipe",
    "export": "write a network as ONNX or .pt2",
}
"""The commands, each a module beside this one that imports torch, which takes seconds. Only what is meant is imported,
so that `amsc --help` and a mistyped command are answered at once."""


def build_parser(meant: Sequence[str] = tuple(COMMANDS)) -> Parser:
    """The command line, with the flags of the commands that are `meant`."""
    parser = Parser(prog="amsc", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--version", action="version", version=_version())
    shtab.add_argument_to(parser, "--print-completion", help="print the completions of a shell, and stop")
    add_output_flags(parser, default=False)
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")
    for name, summary in COMMANDS.items():
        if name in meant:
            with quiet_stop():
                module = importlib.import_module(f"amsc.cli.{name}")
            module.add_parser(commands)
        else:
            commands.add_parser(name, help=summary)
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
    with contextlib.ExitStack() as stack:
        is_silent = not _is_first()
        if is_silent:  # the first process speaks for all; only what goes wrong is said by each
            stdout = stack.enter_context(open(os.devnull, "w"))
        console = Console(stdout, sys.stderr, as_json=as_json, quiet="--quiet" in words or is_silent)
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
    parser = build_parser(_meant(words))
    args = parse(parser, words)
    if "run" not in args:
        parser.print_help(sys.stderr)
        return 2
    with stoppable(), _with_others(words) as is_needed:
        return int(args.run(args, console)) if is_needed else 0


def _is_first() -> bool:
    """Whether torchrun has not started this process as another one than the first."""
    return int(os.environ.get("WORLD_SIZE", "1")) < 2 or os.environ.get("RANK", "0") == "0"


TOGETHER = ("compress", "path", "pick", "resume", "scan")
"""Commands that several processes do together; of others each process but the first does nothing."""


@contextlib.contextmanager
def _with_others(words: Sequence[str]) -> Iterator[bool]:
    """Whether this process has something to do; those that torchrun has started know each other inside."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield True
        return
    from amsc.parallel import all_together, apart, joined

    if set(_meant(words)) & set(TOGETHER):
        with joined(), all_together():
            yield True
    else:
        with apart():
            yield _is_first()


def _meant(words: Sequence[str]) -> tuple[str, ...]:
    """The command that is typed, if there is one; all of them where completions are asked for."""
    if any(word.startswith("--print-completion") for word in words):
        return tuple(COMMANDS)
    return tuple(word for word in words if not word.startswith("-"))[:1]


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
        return stop_code(error), str(error) or "stopped"
    if isinstance(error, OSError):
        return RunFolderError.exit_code, f"cannot read or write: {error}"
    return 1, f"unexpected {type(error).__name__}: {error} (run again with --debug for the traceback)"


def _version() -> str:
    return f"amsc {_installed('amsc')}, torch {_installed('torch')}, Python {platform.python_version()}"


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
