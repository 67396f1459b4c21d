"""Batches that do not fit in memory, computed in parts whose gradients add up."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from amsc.data import batch_size
from amsc.data.batch import may_be_split, some_examples, some_rows
from amsc.errors import AmscWarning, TrainingError

__all__ = ["Parts"]

FEWEST = 2
"""Examples in a part: BatchNorm has no deviation for one."""


@dataclass
class Parts:
    """In how many parts each batch is computed; as many as memory was found to want."""

    count: int = 1

    def of(self, inputs: Any, target: Any) -> Iterator[tuple[Any, Any, float]]:
        """The parts of a batch (inputs, targets), each with its share of the examples."""
        size = batch_size(target) if self.count > 1 else 0
        count = min(self.count, max(1, size // FEWEST))
        if count == 1:
            yield inputs, target, 1.0
            return
        for part in range(count):
            rows = slice(part * size // count, (part + 1) * size // count)
            yield some_rows(inputs, rows), some_examples(target, rows), (rows.stop - rows.start) / size

    def double(self, inputs: Any, target: Any, why: str) -> None:
        """Memory ran out on this batch: twice as many from now on, which a warning says.

        Raises:
            TrainingError: the batch cannot be parted further.
        """
        size = batch_size(target)
        if not may_be_split(inputs, target) or size // (2 * self.count) < FEWEST:
            raise TrainingError(
                f"out of memory with {-(-size // self.count)} examples at a time, which cannot be parted further: "
                f"{(why.splitlines() or [''])[0]}; take a smaller batch_size, or a device with more memory"
            )
        self.count *= 2
        torch.cuda.empty_cache()
        warnings.warn(
            f"out of memory with {-(-2 * size // self.count)} examples at a time: each batch of {size} is computed in "
            f"{self.count} parts from now on, one after the other, and their gradients added up. Steps are those of "
            "whole batches, to rounding; but BatchNorm normalises each part by its own mean and deviation, and counts "
            f"it for its running statistics",
            AmscWarning,
            stacklevel=2,
        )
