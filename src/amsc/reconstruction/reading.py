"""Rows of what consumers read and of what becomes of their outputs, at some positions of each batch."""

import contextlib
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from amsc.borrowing import borrowed, run_model, unfused_attention
from amsc.reconstruction.batches import ready
from amsc.reconstruction.calls import LinearCall, input_rows, numbered, output_rows, put_back, row_order
from amsc.reconstruction.chain import Step, places_of, scale_of
from amsc.reconstruction.replay import LostError, Pass, Replay
from amsc.reconstruction.watch import Link, Names, Watch

__all__ = ["Positions", "Rows", "Wanted", "read", "sampled"]

Positions = Callable[[int, str, int], Tensor]
"""Which positions are read in the batch of this number, of the consumer of this name, which has so many."""


@dataclass(frozen=True, eq=False)
class Rows:
    """At the `positions` of one consumer, of a `total`: `inputs`, what each reads, shape (group, position, read), if it
    was asked for; `values`, the output or the stream it is added to, shape (position, channel); and the `scale` by
    which the output gets there, shape (position or 1, channel)."""

    positions: Tensor
    total: int
    inputs: Tensor | None
    values: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Wanted:
    """What is read of a consumer: the stream after so many `steps`, or at the places it has there its own output
    (`is_own`). Without steps its output as it lies."""

    steps: int = 0
    is_own: bool = True


def sampled(total: int, share: float, seed: int) -> Tensor:
    """A share of the numbers below `total`, in order; the same for the same seed."""
    count = min(total, max(2, round(total * share)))
    if count == total:
        return torch.arange(total)
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:count].sort().values


def read(
    model: nn.Module,
    batches: Iterable[tuple[int, Any]],
    wanted: Mapping[str, Wanted],
    positions: Positions,
    *,
    inputs: bool,
    replay: Replay | None = None,
) -> Generator[dict[str, Rows], None, None]:
    """For each of the numbered batches the rows of the consumers `wanted` by their names.

    The model runs no further than they need, and is given back when the generator is closed. With a `replay` each pass
    goes on from the first of the consumers that the last one read."""
    reader = _Reader(Names.of(model), wanted, positions, inputs)
    with borrowed(model), unfused_attention():
        for number, batch in batches:
            yield reader.rows_of(number, model, batch, replay)


class _ReadAllError(BaseException):
    """Nothing more is wanted of this forward pass. No `Exception`, which the user's forward may catch."""


class _Reader(Watch):
    def __init__(self, names: Names, wanted: Mapping[str, Wanted], positions: Positions, inputs: bool) -> None:
        super().__init__(names)
        self._wanted, self._positions, self._with_inputs = wanted, positions, inputs
        self._batch = 0
        self._pass: Pass | None = None
        self._open: dict[str, tuple[LinearCall, Tensor]] = {}
        self._scales: dict[tuple[str, torch.Size], Tensor] = {}
        self._found: dict[str, Rows] = {}

    def rows_of(self, number: int, model: nn.Module, batch: Any, replay: Replay | None) -> dict[str, Rows]:
        """What is read of the batch of this number: on from where the last pass stood, or else from the start."""
        if replay is not None:
            with contextlib.suppress(LostError), replay.going_on(number, ready(model, batch), self) as (now, inputs):
                self._run(number, model, inputs, now)
                if len(self._found) == len(self._wanted):
                    return self._found
        self._run(number, model, ready(model, batch))
        return self._found

    def _run(self, number: int, model: nn.Module, inputs: Any, now: Pass | None = None) -> None:
        self._batch, self._pass, self._found, self._open = number, now, {}, {}
        with contextlib.suppress(_ReadAllError), self, now or contextlib.nullcontext():
            run_model(model, inputs)

    def is_followed(self, name: str) -> bool:
        return name in self._wanted and self._wanted[name].steps > 0

    def called(self, name: str, call: LinearCall, output: Tensor) -> None:
        if name not in self._wanted:
            return
        if self._pass is not None:
            self._pass.stop_here()
        if not self.is_followed(name):
            self._close(name, call, output, output, ())
            return
        if self._with_inputs:  # what comes then may overwrite them
            call = replace(call, input=call.input.clone())
        self._open[name] = (call, output.clone() if self._wanted[name].is_own else output)

    def stepped(self, link: Link, output: Tensor) -> None:
        name = link.consumer
        if name in self._open and len(link.steps) == self._wanted[name].steps:
            self._close(name, *self._open.pop(name), output, link.steps)

    def _close(self, name: str, call: LinearCall, output: Tensor, end: Tensor, steps: Sequence[Step]) -> None:
        """Read what is wanted; positions are counted as they lie at the `end` of the steps."""
        places = places_of(steps, numbered(call, output)) if any(step.moves for step in steps) else None
        order = None if places is None else row_order(call, places)
        total = len(order) if order is not None else output.numel() // max(1, call.num_outputs)
        chosen = self._positions(self._batch, name, total).to(output.device)
        rows = chosen if order is None else order[chosen]
        is_own = self._wanted[name].is_own
        if places is None or is_own:
            values = output_rows(call, output if is_own else end, rows)
        else:
            values = put_back(call, output, places, end)[rows]
        scale = torch.ones_like(values[:1]) if is_own else self._scale(name, call, output, steps, rows)
        inputs = input_rows(call, output, rows) if self._with_inputs else None
        self._found[name] = Rows(chosen, total, inputs, values, scale)
        if len(self._found) == len(self._wanted):
            raise _ReadAllError

    def _scale(self, name: str, call: LinearCall, output: Tensor, steps: Sequence[Step], rows: Tensor) -> Tensor:
        """One for each channel where that is so: then it is the same in all batches of a shape."""
        if (known := self._scales.get((name, output.shape))) is not None:
            return known
        scale = scale_of(steps, output)
        every = output_rows(call, scale, torch.arange(output.numel() // call.num_outputs, device=scale.device))
        if not bool((every == every[:1]).all()):
            return every[rows]
        self._scales[name, output.shape] = every[:1].clone()
        return every[:1]
