"""Ctrl-C and SIGTERM: at once where nothing would be lost, else after the step that is being taken."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

__all__ = ["Terminated", "Wish", "putting_off", "stoppable"]


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM, as schedulers of clusters and `docker stop` do. Whatever takes care of
    Ctrl-C takes care of it too."""


class Wish:
    """Whether somebody wants the work to stop; `kind` is the exception that says so then."""

    def __init__(self) -> None:
        self.kind: type[KeyboardInterrupt] | None = None

    @property
    def is_heard(self) -> bool:
        """Whether there is such a wish."""
        return self.kind is not None


_waiting: list[Wish] = []
"""Who wants to put something away first, the innermost last: signals belong to the whole process."""
_raised: list[type[KeyboardInterrupt]] = []
"""What signals have raised at once, inside the present `stoppable`."""


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt inside and SIGTERM `Terminated`: at once, or where `putting_off` ends.

    In the middle of an import the exception may be swallowed there, and another one come out much later: that is taken
    for it. Handlers that somebody else has set are left alone, and signals reach the main thread alone.
    """
    mine = {
        signal.SIGINT: signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        signal.SIGTERM: signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
    }
    if threading.current_thread() is not threading.main_thread():
        mine = {}
    before = {number: signal.signal(number, _heard) for number, is_mine in mine.items() if is_mine}
    _raised.clear()
    try:
        yield
    except Exception as error:
        if _raised:
            raise _raised[-1]("stopped") from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def putting_off() -> Iterator[Wish]:
    """A signal inside is only noted: ask the wish after each step, put away what there is, and leave. It is raised at
    the end, unless an error is; a second one is raised at once.

    Where the signals are not those of `stoppable`, nothing is ever heard.
    """
    wish = Wish()
    _waiting.append(wish)
    try:
        yield wish
    finally:
        _waiting.remove(wish)
    if wish.kind is not None:  # where all went well: an error is said before it
        raise wish.kind


def _heard(number: int, frame: Any) -> None:
    kind = Terminated if number == signal.SIGTERM else KeyboardInterrupt
    if not _waiting or _waiting[-1].is_heard:
        _raised.append(kind)
        raise kind
    _waiting[-1].kind = kind
