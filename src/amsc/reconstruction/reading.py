"""Rows of what consumers read and of what becomes of their outputs, at some positions of each batch."""

import contextlib
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from amsc.borrowing import borrowed, unfused_attention
from amsc.reconstruction.batches import run
from amsc.reconstruction.calls import LinearCall, input_rows, output_rows
from amsc.reconstruction.chain import Step, pulled_back
from amsc.reconstruction.watch import Link, Names, Watch

__all__ = ["Positions", "Rows", "read", "sampled"]

Positions = Callable[[int, str, int], Tensor]
"""Which positions are read in the batch of this number, of the consumer of this name, which has so many."""


@dataclass(frozen=True, eq=False)
class Rows:
    """At the `positions` of one consumer, of a `total`: `inputs`, what each reads, shape (group, position, read), if they
    were asked for; `values`, the output or the stream it is added to, shape (position, channel); and the `scale` by
    which the output gets there, shape (position or 1, channel)."""

    positions: Tensor
    total: int
    inputs: Tensor | None
    values: Tensor
    scale: Tensor


def sampled(total: int, share: float, seed: int) -> Tensor:
    """A share of the numbers below `total`, in order; the same for the same seed."""
    count = min(total, max(2, round(total * share)))
    if count == total:
        return torch.arange(total)
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:count].sort().values


def read(
    model: nn.Module, batches: Iterable[Any], wanted: Mapping[str, int], positions: Positions, *, inputs: bool
) -> Generator[dict[str, Rows]]:
    """For each batch the rows of the consumers `wanted` (with the steps to their streams; 0: the output itself), by
    their names. The model runs no further than they need, and is given back when the iterator is closed."""
    reader = _Reader(Names.of(model), wanted, positions, inputs)
    with borrowed(model), unfused_attention():
        for batch in batches:
            with contextlib.suppress(_ReadAllError):
                run(model, batch, reader)
            yield reader.next_batch()


class _ReadAllError(BaseException):
    """Nothing more is wanted of this forward pass. No `Exception`, which the user's forward may catch."""


class _Reader(Watch):
    def __init__(self, names: Names, wanted: Mapping[str, int], positions: Positions, inputs: bool) -> None:
        super().__init__(names)
        self._wanted, self._positions, self._with_inputs = wanted, positions, inputs
        self._batch = 0
        self._open: dict[str, tuple[LinearCall, Tensor, Tensor, Tensor | None]] = {}
        self._scales: dict[tuple[str, torch.Size], Tensor] = {}
        self._found: dict[str, Rows] = {}

    def next_batch(self) -> dict[str, Rows]:
        """What was read of this one."""
        found, self._found, self._open = self._found, {}, {}
        self._batch += 1
        return found

    def is_followed(self, name: str) -> bool:
        return bool(self._wanted.get(name))

    def called(self, name: str, call: LinearCall, output: Tensor) -> None:
        if name not in self._wanted:
            return
        total = output.numel() // max(1, call.num_outputs)
        positions = self._positions(self._batch, name, total).to(output.device)
        inputs = input_rows(call, output, positions) if self._with_inputs else None
        self._open[name] = (call, output, positions, inputs)
        if not self._wanted[name]:
            self._close(name, output, ())

    def stepped(self, link: Link, output: Tensor) -> None:
        name = link.consumer
        if name in self._open and len(link.steps) == self._wanted[name]:
            self._close(name, output, link.steps)

    def _close(self, name: str, end: Tensor, steps: Sequence[Step]) -> None:
        """Read the stream at the `end` of the steps. The scale is the same for all batches of a shape."""
        call, output, positions, inputs = self._open.pop(name)
        known = self._scales.get((name, output.shape))
        values, scale = pulled_back(steps, output, end, known)
        scales = known
        if scales is None:
            scales = output_rows(call, scale, positions)
            every = output_rows(call, scale, torch.arange(output.numel() // scales.shape[1], device=scale.device))
            if bool((every == every[:1]).all()):
                scales = self._scales[name, output.shape] = every[:1].clone()
        total = output.numel() // max(1, call.num_outputs)
        self._found[name] = Rows(positions, total, inputs, output_rows(call, values, positions), scales)
        if len(self._found) == len(self._wanted):
            raise _ReadAllError
