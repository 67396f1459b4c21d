"""Which consumers are to be refitted, to what, and which are left alone, and why."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from torch import nn

from amsc.reconstruction.fitting import Job
from amsc.reconstruction.reading import Wanted
from amsc.reconstruction.survey import Consumer
from amsc.records import RefittedLayer
from amsc.structure.names import is_inside
from amsc.surgery import CutPlan

__all__ = ["Sample", "narrower_layers", "planned", "rows_looked_at"]

LEAST_ROWS, ROWS_PER_INPUT = 2**14, 16
"""Positions that are looked at for each consumer: so many, and so many for each number that one reads."""
MOST_ROWS = 2**17
UNSEEN = "no linear operator reads it as it is: it is computed, a part of another, or read otherwise"


@dataclass(frozen=True)
class Sample:
    """What is asked for: the `target`, "stream" or "own", whether of `inner` layers too, of how many `layers` behind
    the first cut (None: all), and positions of so many batches, drawn with a seed."""

    target: str
    inner: bool
    layers: int | None
    num_batches: int
    seed: int

    def share(self, consumer: Consumer) -> float:
        """Of the consumer's positions in each batch."""
        return rows_looked_at(consumer) / (consumer.positions * self.num_batches)


def rows_looked_at(consumer: Consumer) -> int:
    """How many positions of it are looked at in all batches, if it has so many."""
    return min(max(LEAST_ROWS, ROWS_PER_INPUT * consumer.row_size), MOST_ROWS)


def narrower_layers(model: nn.Module, plan: CutPlan) -> list[str]:
    """The parameters that lost positions which a masked network keeps: inputs of layers."""
    parameters = dict(model.named_parameters())
    names = (cut.parameter for cut in plan.cuts if not cut.zeroed)
    return [name for name in dict.fromkeys(names) if name in parameters and parameters[name].ndim > 1]


def planned(
    before: Mapping[str, Consumer],
    after: Mapping[str, Consumer],
    inputs: Collection[str],
    plan: CutPlan,
    sample: Sample,
) -> tuple[list[Job], list[RefittedLayer]]:
    """What is to be done, in order, and what is left alone, where consumers were as `before` and are now as `after`,
    and those of `inputs` have fewer inputs."""
    jobs, alone = list[Job](), list[RefittedLayer]()
    for name in _candidates(after, inputs, inner=sample.inner):
        consumer, wide = after[name], before.get(name)
        reason = consumer.reason or _mismatch(consumer, wide, plan)
        if reason or wide is None:
            alone.append(RefittedLayer(name.removesuffix(".weight"), reason=reason))
        else:
            jobs.append(_job(consumer, wide, _kept(wide, plan), sample))
    if sample.layers is not None:
        untouched = _untouched(before, after, plan)
        jobs = [job for job in jobs if job.name not in untouched][: sample.layers]
    return jobs, alone + [RefittedLayer(name, reason=UNSEEN) for name in inputs if name not in after]


def _untouched(before: Mapping[str, Consumer], after: Mapping[str, Consumer], plan: CutPlan) -> set[str]:
    """Those that run before anything that was cut: the first consumers that both networks have alike. None are known
    where a block is gone that had no consumer."""
    if not all(any(is_inside(name, block) for name in before) for block in plan.blocks):
        return set()
    cut = {cut.parameter for cut in plan.cuts}
    whole = takewhile(lambda pair: pair[0] == pair[1] and not cut & set(pair), zip(before, after, strict=False))
    return {name for name, _ in whole}


def _job(consumer: Consumer, wide: Consumer, kept: tuple[int, ...], sample: Sample) -> Job:
    """The stream is followed for its sake, or where positions lie otherwise before it gets there: torch's attention has
    the batch second, and what a cut makes of it has it first."""
    has_stream = consumer.stream > 0 and wide.stream > 0
    is_stream = has_stream and sample.target == "stream"
    wanted = [Wanted(), Wanted()]
    if is_stream or consumer.layout != wide.layout:
        wanted = [Wanted(each.stream, is_own=not is_stream) for each in (consumer, wide)]
    kind = "stream" if is_stream else "own"
    return Job(consumer, kind, wanted[0], wanted[1], kept, sample.share(consumer), sample.seed)


def _candidates(consumers: Mapping[str, Consumer], inputs: Collection[str], *, inner: bool) -> list[str]:
    """Those with fewer inputs, those that write to a stream, and those for which no writer behind them makes up.

    All others read something near to what they read before, and what they still lack the next writer takes up with the
    rest: where they are not asked for as `inner` ones, they stay as they are."""
    if inner:
        return list(consumers)
    found, is_made_up_for = list[str](), False
    for name, consumer in reversed(list(consumers.items())):
        if name in inputs or consumer.stream or consumer.is_last or not is_made_up_for:
            found.append(name)
        is_made_up_for |= consumer.stream > 0
    return found[::-1]


def _mismatch(consumer: Consumer, wide: Consumer | None, plan: CutPlan) -> str:
    if wide is None:
        return "the dense network does not run it"
    if wide.num_calls > 1:
        return f"the dense network uses it {wide.num_calls} times in one forward pass"
    is_same = wide.transposed == consumer.transposed and wide.positions == consumer.positions
    if wide.layout != consumer.layout and not (wide.stream and consumer.stream):
        return "its positions do not lie as in the dense network"
    if not is_same or len(_kept(wide, plan)) != consumer.outputs:
        return "the cut network does not run it as the dense one does"
    return ""


def _kept(wide: Consumer, plan: CutPlan) -> tuple[int, ...]:
    """Which outputs of the dense consumer are left."""
    kept = {cut.axis: cut.kept for cut in plan.cuts if cut.parameter == wide.weight}
    if not wide.transposed:
        return kept.get(0, tuple(range(wide.outputs)))
    inner = wide.outputs // wide.groups
    groups: Sequence[int] = range(wide.groups)
    if wide.groups > 1 and 0 in kept:
        size = next(cut.size for cut in plan.cuts if (cut.parameter, cut.axis) == (wide.weight, 0)) // wide.groups
        groups = sorted({position // size for position in kept[0]})
    return tuple(group * inner + output for group in groups for output in kept.get(1, range(inner)))
