"""The losses of a run: one curve for each stretch of training, short enough for a chart, and heard by others too."""

import itertools
import math

import pytest

from amsc.jobs.stages.losses import MOST, LossLog
from amsc.records import TrainingCurve


class _Heard:
    def __init__(self) -> None:
        self.calls: list[tuple[str, int, int, dict[str, float]]] = []

    def update(self, phase: str, step: int, steps: int, **values: float) -> None:
        self.calls.append((phase, step, steps, values))


def test_a_curve_for_each_stretch_and_all_is_handed_on() -> None:
    heard = _Heard()
    log = LossLog(heard, per_epoch=10)
    told = [("dense", 5, 1.0), ("dense", 10, 0.5), ("depth", 5, 2.0), ("width", 15, 1.5), ("finetune", 10, 0.7)]
    for phase, step, loss in [*told, ("finetune", 5, 0.9)]:
        log.update(phase, step, 20, loss=loss, blocks=3)
    assert log.curves == (
        TrainingCurve("dense", (0.5, 1.0), (1.0, 0.5)),
        TrainingCurve("depth", (0.5,), (2.0,)),
        TrainingCurve("width", (1.5,), (1.5,)),
        TrainingCurve("finetune", (1.0,), (0.7,)),
        TrainingCurve("finetune", (0.5,), (0.9,)),  # of the next network that is tried
    )
    assert heard.calls[0] == ("dense", 5, 20, {"loss": 1.0, "blocks": 3})
    assert len(heard.calls) == 6


def test_what_has_no_loss_or_says_the_same_again_leaves_no_mark() -> None:
    log = LossLog(_Heard(), per_epoch=10)
    log.update("ladder", 1, 4, score=0.5)
    log.update("dense", 10, 10, loss=0.5)
    log.update("dense", 10, 10, loss=math.nan)
    log.update("dense", 10, 10, loss=0.25)
    assert log.curves == (TrainingCurve("dense", (1.0,), (0.5,)),)


def test_a_long_stretch_is_thinned_evenly_and_keeps_its_end() -> None:
    log, steps = LossLog(_Heard(), per_epoch=10), 4 * MOST + 1
    for step in range(1, steps + 1):
        log.update("dense", step, steps, loss=float(step))
    (curve,) = log.curves
    assert MOST // 2 <= len(curve.losses) <= MOST + 1
    gaps = [later - sooner for sooner, later in itertools.pairwise(curve.epochs)]
    assert max(gaps[:-1]) - min(gaps[:-1]) < 1e-9
    assert curve.epochs[-1] == pytest.approx(steps / 10)
    assert all(loss == pytest.approx(10 * epoch) for epoch, loss in zip(curve.epochs, curve.losses, strict=True))


def test_going_on_from_what_was_kept_gives_the_same() -> None:
    whole, first = LossLog(_Heard(), per_epoch=10), LossLog(_Heard(), per_epoch=10)
    for step in (5, 10):
        first.update("finetune", step, 20, loss=1 / step)
    second = LossLog(_Heard(), per_epoch=10, curves=first.curves)
    second.update("finetune", 15, 20, loss=0.01)
    for step, loss in ((5, 1 / 5), (10, 1 / 10), (15, 0.01)):
        whole.update("finetune", step, 20, loss=loss)
    assert second.curves == whole.curves
