"""Some batches of a split for an estimate, without reading all of it."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from amsc.data.protocol import Data, SpreadData

__all__ = ["batch_size_of", "spread_batches", "spread_numbers"]


def spread_batches(data: Data, split: str, count: int) -> Iterator[tuple[Any, Any]]:
    """At most `count` batches of `split` as (inputs, targets), the same at every call; no others are read.

    They come from all over the split where the data can be read anywhere (`SpreadData`: amsc's own data and loaders of
    data sets with indices do); otherwise they are the first of a pass without a seed, which is a shuffle."""
    if isinstance(data, SpreadData):
        return data.spread_batches(split, count)
    return islice(data.batches(split), count)


def batch_size_of(data: Data) -> int:
    """How many examples the training batches have: what the data say, else the mean, rounded up."""
    said = getattr(data, "batch_size", None)
    if isinstance(said, int) and said > 0:
        return said
    return max(1, -(-data.num_examples("train") // max(1, data.num_batches("train"))))


def spread_numbers(total: int, count: int) -> list[int]:
    """At most `count` of the numbers 0, 1, ..., total - 1, evenly over them; the first is 0."""
    count = min(count, total)
    return [number * total // count for number in range(count)]
