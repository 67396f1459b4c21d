"""How much of a call's time is left, and an end that nothing can outstay."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Clock", "OutOfTime", "end_the_process_in"]


class OutOfTime(Exception):
    """The call has no time for more; what was done is kept."""


@dataclass(frozen=True)
class Clock:
    """Counts `seconds` down from when it was made."""

    seconds: float
    start: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        """Seconds until work should have stopped."""
        return self.start + self.seconds - time.monotonic()


def end_the_process_in(seconds: float, before: Callable[[], object]) -> threading.Timer:
    """End this process after so many seconds, whatever it is doing; `before` runs first. To be cancelled."""

    def end() -> None:
        print("the time is over in the middle of something that cannot be divided; the next call begins it again")
        before()
        os._exit(0)

    timer = threading.Timer(max(0.0, seconds), end)
    timer.daemon = True
    timer.start()
    return timer
