"""The training examples of which derivatives of losses are taken."""

from collections.abc import Iterator
from typing import Any

import torch

from amsc.data import Data, spread_batches
from amsc.tasks import DrawingTask, Task

__all__ = ["derivative_batches"]

SEED = 0
"""Of what is drawn; the same for all networks."""


def derivative_batches(data: Data, task: Task, count: int) -> Iterator[tuple[Any, Any]]:
    """At most `count` training batches, the same at every call (see `spread_batches`), with targets drawn where the
    task says so."""
    generator = torch.Generator().manual_seed(SEED)
    for inputs, target in spread_batches(data, "train", count):
        yield inputs, task.drawn(target, generator) if isinstance(task, DrawingTask) else target
