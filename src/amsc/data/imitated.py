"""Data whose targets are what the dense network returns."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from amsc.borrowing import OwnState, borrowed, call_arguments, copied_inputs, forward_failed, in_double
from amsc.data.batch import Unlabelled, batch_size, moved
from amsc.data.protocol import Data, alternates
from amsc.data.spread import batch_size_of, spread_batches
from amsc.errors import AmscError, DataError
from amsc.imitation import DenseOutputs, dense_outputs, float_tensors

__all__ = ["Imitated", "inputs_of"]

SCALED = 4
"""Training batches over which the mean squares of the outputs are taken."""


@dataclass(frozen=True, eq=False)
class Imitated:
    """The inputs of `data` with what the network `dense` returns for them, in eval mode and without gradients, in the
    place of labels; implements `Data`. The network is left as it was.

    Raises:
        ModelError: an output has no row for each example; see `amsc.imitation.dense_outputs`.
        DataError: the network does not take a batch.
    """

    data: Data
    dense: nn.Module
    _scales: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    @property
    def name(self) -> str:
        """That of the data."""
        return self.data.name

    @property
    def num_classes(self) -> int | None:
        """That of the data."""
        return self.data.num_classes

    @property
    def batch_size(self) -> int:
        """Examples in a training batch."""
        return batch_size_of(self.data)

    def batches(self, split: str, *, seed: int | None = None) -> Iterator[tuple[Any, DenseOutputs]]:
        """One pass over `split`, as the data give it."""
        return self._with_outputs(split, self.data.batches(split, seed=seed))

    def spread_batches(self, split: str, count: int) -> Iterator[tuple[Any, DenseOutputs]]:
        """At most `count` batches of `split`, those of the data."""
        return self._with_outputs(split, spread_batches(self.data, split, count))

    @property
    def alternates(self) -> bool:
        """As the data do."""
        return alternates(self.data)

    def num_batches(self, split: str) -> int:
        """As many as the data have."""
        return self.data.num_batches(split)

    def num_examples(self, split: str) -> int:
        """As many as the data have."""
        return self.data.num_examples(split)

    def example_inputs(self, batch: int = 1) -> Any:
        """Those of the data."""
        return self.data.example_inputs(batch)

    def _with_outputs(self, split: str, batches: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, DenseOutputs]]:
        own, scales = OwnState.of(self.dense), self._mean_squares()
        for inputs, target in batches:
            yield inputs, dense_outputs(self._output(split, inputs, target), batch_size(target), scales, own)

    def _mean_squares(self) -> dict[str, Tensor]:
        """Of the elements of each tensor over some training batches, 1 where all are 0; taken once."""
        if not self._scales:
            own, sums, numbers = OwnState.of(self.dense), dict[str, Tensor](), dict[str, int]()
            for inputs, target in spread_batches(self.data, "train", SCALED):
                for name, tensor in float_tensors(self._output("train", inputs, target), own).items():
                    sums[name] = sums.get(name, 0) + in_double(tensor).square().sum()
                    numbers[name] = numbers.get(name, 0) + tensor.numel()
            means = {name: (total / max(1, numbers[name])).float() for name, total in sums.items()}
            self._scales.update({name: mean.where(mean > 0, 1.0) for name, mean in means.items()})
        return self._scales

    def _output(self, split: str, inputs: Any, target: Any) -> Any:
        device = next((tensor.device for tensor in self.dense.parameters()), torch.device("cpu"))
        args, kwargs = call_arguments(copied_inputs(moved(inputs, device)))
        with borrowed(self.dense), torch.autocast(device.type, enabled=False):
            try:
                return self.dense(*args, **kwargs)
            except AmscError:
                raise
            except Exception as error:  # the user's forward may raise anything
                failed = forward_failed(self.dense, "it", (args, kwargs), error)
                raise DataError(
                    f"the network does not take a batch of the {split} split of {self.name}: {failed}"
                    f"{_words_on_pairs(inputs, target)}"
                ) from error


def _words_on_pairs(inputs: Any, target: Any) -> str:
    """What to do where a batch that was said to be inputs alone looks like a pair."""
    if not isinstance(target, Unlabelled) or not isinstance(inputs, tuple | list) or len(inputs) != 2:
        return ""
    return (
        "; if it is a pair (inputs, labels) and not two inputs, leave split=inputs_alone out: the task imitation does "
        "not look at the labels. Batches of all splits must have one form"
    )


def inputs_of(data: Data) -> Data:
    """The data for whom wants inputs alone, without asking the dense network for what it returns."""
    return data.data if isinstance(data, Imitated) else data
