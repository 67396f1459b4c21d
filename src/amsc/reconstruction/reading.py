"""Rows of what consumers read and of what becomes of their outputs, at some positions of each batch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from amsc.borrowing import borrowed, unfused_attention
from amsc.reconstruction.batches import run
from amsc.reconstruction.calls import LinearCall, input_rows, output_rows
from amsc.reconstruction.chain import pulled_back
from amsc.reconstruction.watch import Link, Names, Watch

__all__ = ["Positions", "Rows", "read", "sampled"]

Positions = Callable[[str, int], Tensor]
"""Which positions are read of a consumer that has so many."""


@dataclass(frozen=True, eq=False)
class Rows:
    """At the `positions` of one consumer, of a `total`: `inputs`, what each reads (group, position, read), if they were asked for;
    `values`, the output or the stream it is added to (position, channel), and the `scale` by which the output gets
    there, (position or 1, channel)."""

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
    model: nn.Module, batch: Any, wanted: Mapping[str, int], positions: Positions, *, inputs: bool
) -> dict[str, Rows]:
    """The rows of the consumers `wanted` (with the steps to their streams; 0: the output itself), by their names. The
    model runs no further than they need."""
    reader = _Reader(Names.of(model), wanted, positions, inputs)
    with borrowed(model), unfused_attention():
        try:
            run(model, batch, reader)
        except _ReadAllError:
            pass
    return reader.found


class _ReadAllError(BaseException):
    """Nothing more is wanted of this forward pass. No `Exception`, which the user's forward may catch."""


class _Reader(Watch):
    def __init__(self, names: Names, wanted: Mapping[str, int], positions: Positions, inputs: bool) -> None:
        super().__init__(names)
        self._wanted, self._positions, self._with_inputs = wanted, positions, inputs
        self._open: dict[str, tuple[LinearCall, Tensor, Tensor, Tensor | None]] = {}
        self.found: dict[str, Rows] = {}

    def called(self, name: str, call: LinearCall, output: Tensor) -> None:
        if name not in self._wanted:
            return
        positions = self._positions(name, output.numel() // max(1, call.num_outputs)).to(output.device)
        inputs = input_rows(call, output, positions) if self._with_inputs else None
        self._open[name] = (call, output, positions, inputs)
        if not self._wanted[name]:
            self._close(name, output, torch.ones_like(output))

    def stepped(self, link: Link, output: Tensor) -> None:
        name = link.consumer
        if name in self._open and len(link.steps) == self._wanted[name]:
            self._close(name, *pulled_back(link.steps, self._open[name][1], output))

    def _close(self, name: str, values: Tensor, scale: Tensor) -> None:
        call, output, positions, inputs = self._open.pop(name)
        rows, scales = (output_rows(call, tensor, positions) for tensor in (values, scale))
        is_one = bool((scales == scales[:1]).all())
        self.found[name] = Rows(positions, output.numel() // max(1, call.num_outputs), inputs, rows, scales[:1].clone() if is_one else scales)
        if len(self.found) == len(self._wanted):
            raise _ReadAllError
