"""What amsc needs to know of a data set."""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

__all__ = ["Data", "SpreadData", "alternates"]


@runtime_checkable
class Data(Protocol):
    """Examples in three splits, "train", "validation" and "test", handed out in batches."""

    @property
    def name(self) -> str:
        """What reports call the data."""

    @property
    def num_classes(self) -> int | None:
        """The number of classes, or None where that is not known or means nothing."""

    def batches(self, split: str, *, seed: int | None = None) -> Iterator[tuple[Any, Any]]:
        """One pass over `split` as (inputs, targets): where `seed` is None, as they are and in one fixed order, else
        shuffled and augmented, wholly determined by the seed. What targets may be says `amsc.data.batch`.

        The fixed order must be a shuffle too, drawn once and for all: amsc takes statistics and derivatives from a few
        batches, and those of examples sorted by class would know one class each."""

    def num_batches(self, split: str) -> int:
        """How many batches one pass over `split` takes."""

    def num_examples(self, split: str) -> int:
        """How many examples `split` has; 0 where there is no such split."""

    def example_inputs(self, batch: int = 1) -> Any:
        """The inputs of the first `batch` training examples, as `batches` without a seed would hand them out."""


def alternates(data: Data) -> bool:
    """Whether the second of two epochs is to show what the first did not: data that have a true attribute `alternates`.

    The seed of the second of their epochs differs from that of the first in the lowest bit alone."""
    return bool(getattr(data, "alternates", False))


@runtime_checkable
class SpreadData(Data, Protocol):
    """Data that can hand out some batches without reading the others; see `spread_batches`."""

    def spread_batches(self, split: str, count: int) -> Iterator[tuple[Any, Any]]:
        """At most `count` batches from all over `split`, the same at every call, not augmented; only their examples
        are read."""
