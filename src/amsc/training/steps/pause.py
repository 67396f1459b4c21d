"""Training that is left between two steps of an epoch, and gone on with as if it had not been."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from amsc.borrowing import restore_generators

__all__ = ["Pause", "gone_on", "pause_from_plain"]


@dataclass(frozen=True)
class Pause:
    """Where training stands after `steps` steps of a call of `train_steps`: the sum of the losses that were looked at
    (`total`), the mean of the last of them (`recent`), those that `wait`, and torch's random generators."""

    steps: int
    total: float
    recent: float
    wait: Tensor
    generators: tuple[Tensor, ...]

    def to_plain(self) -> dict[str, Any]:
        """As a dictionary; tensors are shared, not copied."""
        return dict(vars(self))


def pause_from_plain(plain: Mapping[str, Any] | None) -> Pause | None:
    """What `to_plain` gave, also after a way through a file, and with more beside it."""
    if plain is None:
        return None
    own = {field.name: plain[field.name] for field in fields(Pause)}
    return Pause(**{**own, "generators": tuple(plain["generators"])})


def gone_on(batches: Iterator[Any], pause: Pause | None, device: torch.device) -> Iterator[Any]:
    """The batches that follow a pause, of the same `batches` from their beginning.

    Those before are made again, since what makes them may draw random numbers; then the generators are as they were.
    For CUDA one batch more had been fetched by then (see `ahead`)."""
    if pause is None:
        yield from batches
        return
    for _ in islice(batches, pause.steps):
        pass
    fetched = list(islice(batches, 1 if device.type == "cuda" else 0))
    restore_generators(pause.generators, [device])
    yield from fetched
    yield from batches
