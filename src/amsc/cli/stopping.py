"""Ctrl-C while nothing has begun yet."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

__all__ = ["INTERRUPTED", "quiet_stop"]

INTERRUPTED = 130
"""The exit code of what was stopped."""


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
