"""How long-running work says how far it is, without knowing who listens."""

from typing import Protocol

__all__ = ["NoProgress", "Progress"]


class Progress(Protocol):
    """Somebody who listens, such as a progress bar."""

    def update(self, phase: str, step: int, steps: int, **values: float) -> None:
        """`step` of `steps` of `phase` ("dense", "depth", "width" or "finetune") are done.

        `values` are the latest of `loss`, `blocks`, `channels`, `macs` and `score`, as far as they are known.
        """


class NoProgress:
    """Nobody listens."""

    def update(self, phase: str, step: int, steps: int, **values: float) -> None:
        """Nothing happens."""
