"""The command line: `amsc demo`, `inspect`, `compress`, `measure`, `resume`, `export`."""

from collections.abc import Sequence

from amsc.cli.stopping import quiet_stop, stop_code

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; never raises for what a user may do wrong.

    What it needs is imported here and not before, and torch once a command is known, so that Ctrl-C ends also that
    without a traceback.
    """
    try:
        with quiet_stop():
            from amsc.cli import commands
        return commands.main(argv)
    except KeyboardInterrupt as stop:  # before or after the command, which answers it itself
        return stop_code(stop)
