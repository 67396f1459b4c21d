"""Who hears how far a job is: the caller's listener, or a person at a terminal or a notebook."""

import contextlib
import logging
from collections.abc import Iterator
from typing import TypeAlias

from rich.console import Console

from amsc.parallel import world
from amsc.progress import NoProgress, Progress
from amsc.words.listeners import LineProgress, listening_on

__all__ = ["Heard", "listener_of"]

Heard: TypeAlias = Progress | bool | None
"""A listener; True for one that shows on standard error how far a job is, False for none, None for one where that is a
terminal or a notebook, and else for lines in the log "amsc" at level INFO."""

LOG = logging.getLogger("amsc")


@contextlib.contextmanager
def listener_of(progress: Heard) -> Iterator[Progress]:
    """The listener that `progress` asks for, for the time of a job."""
    console = Console(stderr=True, highlight=False)
    if not world().is_first:
        progress = False
    if progress is None and (console.is_terminal or console.is_jupyter):
        progress = True
    if progress is None and LOG.isEnabledFor(logging.INFO):
        LOG.info("how far it is follows here; progress=True shows it on standard error, progress=False nowhere")
        yield LineProgress(LOG.info)
    elif progress is True:
        with listening_on(console) as listener:
            yield listener
    else:
        yield progress or NoProgress()
