"""What becomes of the networks that a scan proposes: their loss on a few examples, and, if asked for, more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from amsc.borrowing import borrowed, copied
from amsc.data import Data, batch_size, inputs_of, may_be_split, moved, some_examples, some_rows, spread_batches
from amsc.errors import AmscError
from amsc.jobs.scan_request import ScanRequest
from amsc.measurement import time_model
from amsc.reconstruction import reconstruct
from amsc.records import ScanPoint
from amsc.structure import Structure
from amsc.surgery import CutPlan, apply_plan, cut_with_error, masked, plan_cut
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
        as_gone = apply_plan if plan.unproven else masked
        seen = self.increase(as_gone(self.model, plan, shares=True))
        is_near = seen <= FAR * point.predicted_increase + NONE * abs(self.loss)  # no number is near nothing
        return replace(point, seen_increase=seen, is_far_off=not is_near)

    def increase(self, small: nn.Module) -> float:
        """How much larger the loss of another network is."""
        return _mean_loss(small, self.batches, self.task) - self.loss


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
    (
        "score",
        "score_reestimated",
        "latency_seconds",
        "latency_spread_seconds",
        "seen_increase_reconstructed",
        "score_reconstructed",
        "repaired",
        "not_reconstructed",
    )
)


@dataclass(frozen=True, eq=False)
class Look:
    """Cuts the structure of a point from the network, gives back what that costs, and looks at what comes out."""

    wanted: ScanRequest
    structure: Structure
    check: LossCheck

    def at_all(self, points: Sequence[ScanPoint]) -> tuple[ScanPoint, ...]:
        """The points with what was asked for; a network that several share is looked at once."""
        wanted, found = self.wanted, list[ScanPoint]()
        if not (wanted.evaluate or wanted.latency or wanted.is_reconstructed):
            return tuple(points)
        for number, point in enumerate(points):
            is_same = bool(found) and replace(found[-1], share=point.share, **_NOT_LOOKED_AT) == point
            found.append(replace(found[-1], share=point.share) if is_same else self._at(point))
            wanted.progress.update("look", number + 1, len(points))
        return tuple(found)

    def _at(self, point: ScanPoint) -> ScanPoint:
        wanted = self.wanted
        try:
            small = self._cut(point)
        except AmscError as error:
            if wanted.evaluate or wanted.latency:
                raise
            return replace(point, not_reconstructed=f"it cannot be cut: {error}")
        if wanted.latency:
            seconds, spread = time_model(small, wanted.example_inputs)
            point = replace(point, latency_seconds=seconds, latency_spread_seconds=spread)
        if wanted.is_reconstructed:  # before the statistics of BatchNorm are other ones
            point = self._reconstructed(point, small)
        if wanted.evaluate:
            score = self._score(small)
            reestimate_batchnorm(small, wanted.data)
            point = replace(point, score=score, score_reestimated=self._score(small))
        return point

    def _reconstructed(self, point: ScanPoint, small: nn.Module) -> ScanPoint:
        """The point with what is lost once the network that was cut is refitted to the whole one."""
        wanted, plan = self.wanted, self._plan(point)
        if plan.changes_nothing:
            score = self._score(small) if wanted.evaluate else None
            return replace(point, seen_increase_reconstructed=0.0, score_reconstructed=score)
        settings, inputs = wanted.settings, inputs_of(wanted.data)
        try:
            found = reconstruct(
                small, wanted.model, inputs, plan=plan, examples=settings.reconstruction, seed=settings.seed
            )
        except AmscError as error:
            return replace(point, not_reconstructed=str(error))
        return replace(
            point,
            seen_increase_reconstructed=self.check.increase(found.model),
            score_reconstructed=self._score(found.model) if wanted.evaluate else None,
            repaired=found.record,
        )

    def _score(self, model: nn.Module) -> float:
        return evaluate(model, self.wanted.data, "validation", self.wanted.task).score

    def _plan(self, point: ScanPoint) -> CutPlan:
        return plan_cut(self.structure, channels=point.removed_channels, blocks=point.removed_blocks)

    def _cut(self, point: ScanPoint) -> nn.Module:
        model, plan = self.wanted.model, self._plan(point)
        if plan.changes_nothing:
            return copied(model)
        return cut_with_error(model, self.structure, plan, self.wanted.example_inputs)[0]
