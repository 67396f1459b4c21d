"""One consumer: what its output lacks, and the weights with which it lacks least."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from amsc.borrowing import named_tensors
from amsc.reconstruction.calls import weight_change
from amsc.reconstruction.moments import Moments
from amsc.reconstruction.reading import Rows, read, sampled
from amsc.reconstruction.solve import Solution, solved
from amsc.reconstruction.survey import Consumer
from amsc.records import RefittedLayer

__all__ = ["Job", "Target", "refit"]

FIT_SHARE = 0.75
"""Of the positions of each batch, where the batches are too few for whole ones to be held out."""
HOLD_OUT = 4
"""Every fourth batch."""
MOST_READ = 12_000
"""Numbers that a position reads, of which the second moments are kept at once."""


@dataclass(frozen=True, eq=False)
class Target:
    """What the dense network has at the positions of one batch, and the scale of its consumer's output there."""

    values: Tensor
    scale: Tensor


@dataclass(frozen=True, eq=False)
class Job:
    """A consumer that is to be refitted: `kind` "own" or "stream", the steps to the stream in the cut and in the dense
    network, which of the dense outputs are `kept`, and the `share` of the positions that is looked at."""

    consumer: Consumer
    kind: str
    steps: int
    dense_steps: int
    kept: tuple[int, ...]
    share: float
    seed: int

    @property
    def name(self) -> str:
        """The weight's."""
        return self.consumer.weight

    def positions(self, batch: int, total: int) -> Tensor:
        """Those of a batch that are looked at."""
        return sampled(total, self.share, self.seed * 1_000_003 + batch)


def refit(model: nn.Module, batches: Sequence[Any], job: Job, targets: Sequence[Target]) -> RefittedLayer | None:
    """Refit the consumer in place; None where its output is what it should be.

    Very wide rows are taken a part after the other, each for what the output lacks by then."""
    layer = RefittedLayer(job.name.removesuffix(".weight"), job.kind)
    for columns in _parts(job.consumer.row_size):
        found = _measured(model, batches, job, targets, columns)
        if found is None:
            return None
        if found.reason:
            return RefittedLayer(layer.name, layer.target, reason=found.reason)
        layer = _improved(model, job, found, columns, layer)
    return layer


def _parts(size: int) -> Iterator[slice]:
    count = -(-size // MOST_READ)
    step = -(-size // count)
    yield from (slice(start, min(start + step, size)) for start in range(0, size, step))


@dataclass(eq=False)
class _Measured:
    """The moments of the examples to fit to and of those held out; the spread of what the outputs should be there."""

    fit: Moments = field(default_factory=Moments)
    held: Moments = field(default_factory=Moments)
    center: Tensor | None = None
    scales: Tensor | None = None
    sums: Tensor | None = None
    squares: Tensor | None = None
    reason: str = ""

    @property
    def weights(self) -> Tensor:
        """How much the squared error of each output counts: in the stream's units."""
        assert self.scales is not None
        return self.scales.square()

    @property
    def spread(self) -> float:
        """Variance of what the outputs should be, summed over them; their mean square where they are constant."""
        assert self.sums is not None and self.squares is not None
        mean_squares = self.squares / self.held.count
        variance = (mean_squares - (self.sums / self.held.count).square()).clamp(min=0)
        return float(variance.sum()) or float(mean_squares.sum()) or 1.0


def _measured(
    model: nn.Module, batches: Sequence[Any], job: Job, targets: Sequence[Target], columns: slice
) -> _Measured | None:
    """None where the first batch shows no difference."""
    found = _Measured()
    for number, (batch, target) in enumerate(zip(batches, targets, strict=True)):
        rows = read(model, batch, {job.name: job.steps}, lambda _, n: job.positions(number, n), inputs=True)
        row = rows.get(job.name)
        if row is None or row.values.shape != target.values.shape:
            return _Measured(reason="the cut network does not run it as the dense one does")
        assert row.inputs is not None
        lacking = target.values.double() - row.values.double()
        if not bool(torch.isfinite(lacking).all() & torch.isfinite(row.inputs).all()):
            return _Measured(reason="what it reads or returns is not finite")
        if number == 0 and columns.start == 0 and _is_nothing(lacking, target.values):
            return None
        _add(found, job, row, target, lacking, columns, number, len(batches))
    few = found.fit.count == 0 or found.held.count == 0
    return _Measured(reason="there are too few examples to hold some out") if few else found


def _is_nothing(lacking: Tensor, values: Tensor) -> bool:
    """Whether a difference is rounding."""
    allowed = min(1e3 * torch.finfo(values.dtype).eps, 1e-2)
    return float(lacking.norm()) <= allowed * float(values.double().norm())


def _add(
    found: _Measured,
    job: Job,
    row: Rows,
    target: Target,
    lacking: Tensor,
    columns: slice,
    number: int,
    num_batches: int,
) -> None:
    groups = job.consumer.groups
    scale = row.scale.double()
    reaches = (scale != 0) & (target.scale.to(scale.device) != 0)
    residual = (lacking / scale).where(reaches, 0.0)
    assert row.inputs is not None
    read = row.inputs[..., columns].double()
    if _has_shift(job):
        found.center = read.mean(1, keepdim=True) if found.center is None else found.center
        read = torch.cat([read - found.center, torch.ones_like(read[..., :1])], dim=-1)
    residual = residual.unflatten(1, (groups, -1)).movedim(1, 0)
    if found.scales is None:
        found.scales = scale.where(reaches, 0.0).square().mean(0).sqrt().view(groups, -1)
        found.sums = found.squares = torch.zeros_like(found.scales.flatten())
    total = row.total
    is_held = (row.positions >= FIT_SHARE * total) if num_batches < HOLD_OUT else (
        torch.full_like(row.positions, number % HOLD_OUT == HOLD_OUT - 1, dtype=torch.bool)
    )
    found.fit.add(read[:, ~is_held], residual[:, ~is_held])
    found.held.add(read[:, is_held], residual[:, is_held])
    wanted = target.values[is_held].double()
    found.sums, found.squares = found.sums + wanted.sum(0), found.squares + wanted.square().sum(0)


def _has_shift(job: Job) -> bool:
    return job.consumer.bias is not None or job.consumer.norm is not None


def _improved(model: nn.Module, job: Job, found: _Measured, columns: slice, layer: RefittedLayer) -> RefittedLayer:
    solution = solved(found.fit, found.held, found.weights, with_shift=_has_shift(job))
    before = float((found.weights * found.held.residuals).sum()) / found.held.count / found.spread
    first = before if layer.error_before is None else layer.error_before
    if solution is None:
        return RefittedLayer(layer.name, job.kind, first, before, layer.ridge)
    _write(model, job, solution, found.center, columns)
    return RefittedLayer(layer.name, job.kind, first, solution.after / found.spread, solution.ridge)


def _write(model: nn.Module, job: Job, solution: Solution, center: Tensor | None, columns: slice) -> None:
    consumer, tensors = job.consumer, named_tensors(model)
    weight = tensors[job.name]
    groups, outputs, _ = solution.change.shape
    change = solution.change.new_zeros((groups, outputs, consumer.row_size))
    change[..., columns] = solution.change
    with torch.no_grad():
        weight.add_(weight_change(weight, change, transposed=consumer.transposed).to(weight))
        if center is not None:
            shift = (solution.shift - (solution.change @ center.mT)[..., 0]).flatten()
            if consumer.bias is not None:
                tensors[consumer.bias].add_(shift.to(tensors[consumer.bias]))
            elif consumer.norm is not None:
                tensors[consumer.norm].sub_(shift.to(tensors[consumer.norm]))
