"""The command line: `amsc demo`, `inspect`, `compress`, `measure`, `resume`, `export`."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence

__all__ = ["main"]

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; never raises for what a user may do wrong.

    Torch is imported here and not before, so that Ctrl-C ends also that without a traceback.
    """
    try:
        with _quiet_stop():
            from amsc.cli import commands
        return commands.main(argv)
    except KeyboardInterrupt:  # before or after the command, which answers it itself
        return INTERRUPTED


@contextlib.contextmanager
def _quiet_stop() -> Iterator[None]:
    """Ctrl-C ends the process at once, as nothing has begun: an exception in the middle of an import may be swallowed
    there, or come out as another one."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
