"""How long-running work says how far it is, without knowing who listens."""

from collections.abc import Mapping
from typing import Protocol

__all__ = ["Naming", "NoProgress", "Progress", "Tell", "silent"]


class Progress(Protocol):
    """Somebody who listens, such as a progress bar."""

    def update(self, phase: str, step: int, steps: int, **values: float) -> None:
        """`step` of `steps` (0: nobody knows how many) of `phase` are done.

        A run has the phases "prepare", "dense", "regularize", "search", "depth", "width", "finetune" and "measure", a
        scan "prepare", "gates" and "look".

        `values` are the latest of `loss`, `blocks`, `channels`, `macs` and `score`, as far as they are known; a score
        beside a loss is one on the way of training, by which nothing is chosen. `cost` is that of the network being
        fine-tuned, as a share of the dense one's. Of a search, `tried` blocks have been
        priced and `judged` networks judged so far. `rolled_back` is the halved learning rate with which
        training goes on from there, after a loss that was no number.
        """


class Tell(Protocol):
    """Hears what is new in a piece of work, of which it knows how far it is."""

    def __call__(self, **values: float) -> None:
        """The `values` of `Progress.update`."""


def silent(**values: float) -> None:
    """Nobody listens."""


class NoProgress:
    """Nobody listens."""

    def update(self, phase: str, step: int, steps: int, **values: float) -> None:
        """Nothing happens."""


class Naming:
    """Hands on what it hears to a listener, with values of its own: of which network it is."""

    def __init__(self, listener: Progress, values: Mapping[str, float]) -> None:
        self._listener, self._values = listener, values

    def update(self, phase: str, step: int, steps: int, **values: float) -> None:
        """Hand it on."""
        self._listener.update(phase, step, steps, **self._values, **values)
