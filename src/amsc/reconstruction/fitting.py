"""One consumer: what its output lacks, and the weights with which it lacks least."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from amsc.borrowing import named_tensors
from amsc.parallel import by_first, summed, told
from amsc.reconstruction.batches import is_for_all, own_batches
from amsc.reconstruction.calls import weight_change
from amsc.reconstruction.moments import Moments, exact
from amsc.reconstruction.reading import Rows, Wanted, read, sampled
from amsc.reconstruction.replay import Replay
from amsc.reconstruction.solve import Solution, solved
from amsc.reconstruction.survey import Consumer
from amsc.records import RefittedLayer

__all__ = ["Job", "Target", "refit"]

FIT_SHARE = 0.75
"""Of the positions of each batch, where the batches are too few for whole ones to be held out."""
HOLD_OUT = 4
"""Every fourth batch."""
NO_DIFFERENCE = "no difference"
MOST_NUMBERS = 2**23
"""Of the rows that are multiplied at once."""
MOST_READ = 12_000
"""Numbers that a position reads, of which the second moments are kept at once."""


@dataclass(frozen=True, eq=False)
class Target:
    """What the dense network has at the positions of one batch, and the scale of its consumer's output there."""

    values: Tensor
    scale: Tensor


@dataclass(frozen=True, eq=False)
class Job:
    """A consumer that is to be refitted: `kind` "own" or "stream", what is read of it in the cut and in the dense
    network, which of the dense outputs are `kept`, and the `share` of the positions that is looked at."""

    consumer: Consumer
    kind: str
    wanted: Wanted
    dense_wanted: Wanted
    kept: tuple[int, ...]
    share: float
    seed: int

    @property
    def name(self) -> str:
        """The weight's."""
        return self.consumer.weight

    @property
    def has_shift(self) -> bool:
        """Whether a constant may be added to the output."""
        return self.consumer.has_shift

    def positions(self, batch: int, total: int) -> Tensor:
        """Those of a batch that are looked at."""
        return sampled(total, self.share, self.seed * 1_000_003 + batch)


def refit(
    model: nn.Module, batches: Sequence[Any], job: Job, targets: Sequence[Target | None], replay: Replay
) -> RefittedLayer | None:
    """Refit the consumer in place; None where its output is what it should be. `replay` knows the model's last passes.

    Very wide rows are taken a part after the other, each for what the output lacks by then."""
    layer = RefittedLayer(job.name.removesuffix(".weight"), job.kind)
    for columns in _parts(job.consumer.row_size):
        measured = _Measured(job, columns, len(batches))
        reason = _measure(measured, model, batches, targets, replay)
        if reason == NO_DIFFERENCE:
            return None
        if reason:
            return RefittedLayer(layer.name, layer.target, reason=reason)
        layer = _improved(model, measured, layer)
    return layer


def _parts(size: int) -> Iterator[slice]:
    step = -(-size // -(-size // MOST_READ))
    yield from (slice(start, min(start + step, size)) for start in range(0, size, step))


class _Measured:
    """The moments of the examples to fit to and of those held out, for some columns of what a consumer reads.

    `center` is what is taken from the columns before a constant 1 is added to them, None where there is no shift;
    `scales` are those by which each output reaches what is compared, shape (group, output); `wanted` are sums over what
    should be there, and over its squares."""

    def __init__(self, job: Job, columns: slice, num_batches: int) -> None:
        self.job, self.columns, self._num_batches = job, columns, num_batches
        self.fit, self.held = Moments(), Moments()
        self.center: Tensor | None = None
        self.scales = self._wanted = torch.zeros(())

    def begin(self, row: Rows | None, target: Target | None) -> str:
        """Look at the first batch, which the center is of; why no other is to be looked at, "" if it is."""
        reason, center = by_first(lambda: self._first_look(row, target))
        self.center = None if center is None or row is None else center.to(exact(row.values[:0]).device)
        return reason

    def _first_look(self, row: Rows | None, target: Target | None) -> tuple[str, Tensor | None]:
        if reason := _why_not(row, target):
            return reason, None
        assert row is not None
        assert row.inputs is not None
        assert target is not None
        if self.columns.start == 0 and _is_as_before(row.values, target.values):
            return NO_DIFFERENCE, None
        center = exact(row.inputs[..., self.columns]).mean(1, keepdim=True) if self.job.has_shift else None
        return "", center

    def pool(self) -> None:
        """Take in what the other processes have seen."""
        self.fit.pool()
        self.held.pool()
        (self._wanted,) = summed([self._wanted])
        self.scales = by_first(lambda: self.scales).to(self._wanted.device)

    def add(self, number: int, row: Rows, target: Target) -> None:
        """What one batch shows, some of its rows at a time."""
        assert row.inputs is not None
        scale = exact(row.scale).where(exact(target.scale) != 0, 0.0)
        is_held, lacking = self._is_held(number, row).to(scale.device), exact(target.values) - exact(row.values)
        residual = (lacking / scale).where(scale != 0, 0.0).unflatten(1, (self.job.consumer.groups, -1)).movedim(1, 0)
        step = max(1, MOST_NUMBERS // (self.job.consumer.groups * self.job.consumer.row_size))
        for rows in torch.arange(len(is_held), device=scale.device).split(step):
            for moments, chosen in ((self.fit, rows[~is_held[rows]]), (self.held, rows[is_held[rows]])):
                moments.add(self._read(row.inputs, chosen), residual[:, chosen])
        wanted = exact(target.values)[is_held]
        self._wanted = self._wanted + torch.stack([wanted.sum(0), wanted.square().sum(0)])
        self.scales = scale.square().mean(0).sqrt().view(self.job.consumer.groups, -1)

    def _read(self, inputs: Tensor, rows: Tensor) -> Tensor:
        """What these rows read, less the center and with a constant 1 where there is a shift."""
        read = exact(inputs[:, rows.to(inputs.device), self.columns])
        if self.center is None:
            return read
        return torch.cat([read - self.center, torch.ones_like(read[..., :1])], dim=-1)

    def _is_held(self, number: int, row: Rows) -> Tensor:
        """Whole batches are held out; where they are few, the last examples of each."""
        if self._num_batches < HOLD_OUT:
            return row.positions + 1 > FIT_SHARE * row.total
        return torch.full_like(row.positions, number % HOLD_OUT == HOLD_OUT - 1, dtype=torch.bool)

    @property
    def weights(self) -> Tensor:
        """How much the squared error of each output counts."""
        return self.scales.square()

    @property
    def spread(self) -> float:
        """Variance of what should be there, summed over the outputs; their mean squares where all are constant."""
        mean, mean_square = self._wanted / self.held.count
        return float((mean_square - mean.square()).clamp(min=0).sum()) or float(mean_square.sum()) or 1.0


def _measure(
    measured: _Measured, model: nn.Module, batches: Sequence[Any], targets: Sequence[Target | None], replay: Replay
) -> str:
    """Take the moments of all batches; says why that is not possible, "" if it is."""
    job = measured.job

    def positions(number: int, _: str, total: int) -> Tensor:
        return job.positions(number, total)

    own = own_batches(batches)

    def look() -> str:
        """Why nothing can be said, if so; what this process has to say is in `measured` then."""
        with closing(read(model, own, {job.name: job.wanted}, positions, inputs=True, replay=replay)) as every:
            for (number, _), rows, target in zip(own, every, targets, strict=True):
                row = rows.get(job.name)
                reason = _why_not(row, target)
                if number == own[0][0]:
                    reason = measured.begin(row, target) or reason
                if reason:
                    return reason
                assert row is not None
                assert target is not None
                measured.add(number, row, target)
        return ""

    reason = next(filter(None, told(look)), "")
    if not reason and not is_for_all(batches):
        measured.pool()
    return reason or (
        "" if measured.fit.count and measured.held.count else "there are too few examples to hold some out"
    )


def _why_not(row: Rows | None, target: Target | None) -> str:
    """Why a batch says nothing of what the consumer lacks; "" if it does."""
    if row is None or row.inputs is None or target is None or row.values.shape != target.values.shape:
        return "the cut network does not run it as the dense one does"
    if not all(bool(torch.isfinite(each).all()) for each in (row.inputs, row.values, target.values)):
        return "what it reads or returns is not finite"
    return ""


def _is_as_before(values: Tensor, wanted: Tensor) -> bool:
    """Whether a difference is rounding."""
    allowed = min(float(torch.finfo(wanted.dtype).eps) ** 0.6, 1e-2)
    return bool((exact(values) - exact(wanted)).norm() <= allowed * exact(wanted).norm())


def _improved(model: nn.Module, measured: _Measured, layer: RefittedLayer) -> RefittedLayer:
    fit, held, weights, with_shift = measured.fit, measured.held, measured.weights, measured.job.has_shift
    solution = solved(fit, held, weights, with_shift=with_shift)
    before = float((weights * held.residuals).sum()) / held.count / measured.spread
    first = before if layer.error_before is None else layer.error_before
    if solution is None:
        return RefittedLayer(layer.name, layer.target, first, before, layer.ridge)
    _write(model, measured, solution)
    return RefittedLayer(layer.name, layer.target, first, solution.after / measured.spread, solution.ridge)


def _write(model: nn.Module, measured: _Measured, solution: Solution) -> None:
    consumer, tensors = measured.job.consumer, named_tensors(model)
    weight, center = tensors[consumer.weight], measured.center
    groups, outputs, _ = solution.change.shape
    change = solution.change.new_zeros((groups, outputs, consumer.row_size))
    change[..., measured.columns] = solution.change
    with torch.no_grad():
        weight.add_(weight_change(weight, change, transposed=consumer.transposed).to(weight))
        if center is not None:
            shift = (solution.shift - (solution.change @ center.mT)[..., 0]).flatten()
            _shift(tensors, consumer, shift)


def _shift(tensors: Mapping[str, Tensor], consumer: Consumer, shift: Tensor) -> None:
    if consumer.bias is not None:
        tensors[consumer.bias].add_(shift.to(tensors[consumer.bias]))
    elif consumer.norm is not None:
        tensors[consumer.norm].sub_(shift.to(tensors[consumer.norm]))
