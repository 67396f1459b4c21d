"""What amsc needs to know of a data set."""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

__all__ = ["Data"]


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
        """One pass over `split` as (inputs, targets): in order and as they are where `seed` is None, else shuffled
        and augmented, wholly determined by the seed. What targets may be says `amsc.data.batch`."""

    def num_batches(self, split: str) -> int:
        """How many batches one pass over `split` takes."""

    def num_examples(self, split: str) -> int:
        """How many examples `split` has; 0 where there is no such split."""

    def example_inputs(self, batch: int = 1) -> Any:
        """The inputs of the first `batch` training examples, in order, as `batches` would hand them out."""
