"""What becomes of the networks that a scan proposes: their loss on a few examples, and, if asked for, more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from amsc.borrowing import borrowed, copied
from amsc.data import Data, batch_size, may_be_split, moved, some_examples, some_rows, spread_batches
from amsc.measurement import time_model
from amsc.records import ScanPoint
from amsc.structure import Structure
from amsc.surgery import cut, masked, plan_cut
from amsc.tasks import Task
from amsc.training import device_of, evaluate, forward, reestimate_batchnorm

__all__ = ["CHECKED", "Look", "LossCheck"]

CHECKED = 64
"""Training examples on which the loss of each network is looked at."""
BATCHES = 4
"""Batches that these come from at least, where batches can be split."""
FAR = 10
"""A loss that grows by more than so many times what is predicted is far from that."""
NONE = 0.1
"""A growth by less than this share of the whole network's loss is none."""


@dataclass(frozen=True, eq=False)
class LossCheck:
    """How much the mean loss of some training examples, `batches`, grows once a structure is gone; of the whole network
    it is `loss`."""

    model: nn.Module
    structure: Structure
    task: Task
    batches: Sequence[tuple[Any, Any]]
    loss: float

    @classmethod
    def of(cls, model: nn.Module, structure: Structure, data: Data, task: Task, *, can_split: bool) -> "LossCheck":
        """The check on `CHECKED` examples, or on the batches that hold as many where they cannot be split."""
        batches = _some_batches(data, can_split=can_split)
        return cls(model, structure, task, batches, _mean_loss(model, batches, task))

    def checked(self, point: ScanPoint) -> ScanPoint:
        """The point with the growth of the loss, and whether that is far from the predicted one."""
        plan = plan_cut(self.structure, channels=point.removed_channels, blocks=point.removed_blocks)
        if plan.changes_nothing:
            return replace(point, seen_increase=0.0)
        seen = _mean_loss(masked(self.model, plan, shares=True), self.batches, self.task) - self.loss
        is_near = seen <= FAR * point.predicted_increase + NONE * abs(self.loss)  # no number is near nothing
        return replace(point, seen_increase=seen, is_far_off=not is_near)


def _some_batches(data: Data, *, can_split: bool) -> list[tuple[Any, Any]]:
    usual = max(1, data.num_examples("train") // max(1, data.num_batches("train")))
    count = -(-CHECKED // usual)
    if not can_split:
        return list(spread_batches(data, "train", count))
    count = max(BATCHES, count)
    rows = slice(0, -(-CHECKED // min(count, data.num_batches("train"))))
    return [
        (some_rows(inputs, rows), some_examples(target, rows)) if may_be_split(inputs, target) else (inputs, target)
        for inputs, target in spread_batches(data, "train", count)
    ]


def _mean_loss(model: nn.Module, batches: Sequence[tuple[Any, Any]], task: Task) -> float:
    """Over examples, in eval mode."""
    device, total, examples = device_of(model), 0.0, 0
    with borrowed(model):
        for inputs, target in batches:
            count = batch_size(target)
            total += count * float(task.loss(forward(model, inputs, device), moved(target, device)))
            examples += count
    return total / examples


_NOT_LOOKED_AT: Mapping[str, Any] = dict.fromkeys(
    ("score", "score_reestimated", "latency_seconds", "latency_spread_seconds")
)


class Look:
    """Cuts the structure of a point from the network, and looks at what comes out."""

    def __init__(
        self,
        model: nn.Module,
        structure: Structure,
        inputs: Any,
        data: Data,
        task: Task,
        *,
        evaluate: bool,
        latency: bool,
    ) -> None:
        self.model, self.structure, self.inputs, self.data, self.task = model, structure, inputs, data, task
        self.evaluate, self.latency = evaluate, latency

    def at_all(self, points: Sequence[ScanPoint]) -> tuple[ScanPoint, ...]:
        """The points with what was asked for; a network that several share is looked at once."""
        found: list[ScanPoint] = []
        for point in points if self.evaluate or self.latency else ():
            is_same = bool(found) and replace(found[-1], share=point.share, **_NOT_LOOKED_AT) == point
            found.append(replace(found[-1], share=point.share) if is_same else self._at(point))
        return tuple(found or points)

    def _at(self, point: ScanPoint) -> ScanPoint:
        small = self._cut(point)
        if self.latency:
            seconds, spread = time_model(small, self.inputs)
            point = replace(point, latency_seconds=seconds, latency_spread_seconds=spread)
        if self.evaluate:
            score = evaluate(small, self.data, "validation", self.task).score
            reestimate_batchnorm(small, self.data)
            anew = evaluate(small, self.data, "validation", self.task).score
            point = replace(point, score=score, score_reestimated=anew)
        return point

    def _cut(self, point: ScanPoint) -> nn.Module:
        plan = plan_cut(self.structure, channels=point.removed_channels, blocks=point.removed_blocks)
        return copied(self.model) if plan.changes_nothing else cut(self.model, plan, self.inputs)
