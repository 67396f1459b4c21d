"""What is said of a command that was stopped, and Ctrl-C while nothing has begun yet."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

from amsc.stopping import Terminated

__all__ = ["INTERRUPTED", "TERMINATED", "quiet_stop", "stop_code"]

INTERRUPTED = 130
"""The exit code of what was stopped by Ctrl-C."""
TERMINATED = 143
"""The exit code of what was stopped by SIGTERM."""


def stop_code(error: KeyboardInterrupt) -> int:
    """The exit code of what this ended: 128 and the number of the signal, as shells have it."""
    return TERMINATED if isinstance(error, Terminated) else INTERRUPTED


@contextlib.contextmanager
def quiet_stop() -> Iterator[None]:
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
