"""The losses of a run: one curve for each stretch of training, short enough for a chart, and heard by others too."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest

from amsc import Target
from amsc.jobs.stages.losses import MOST, LossLog
from amsc.records import Record, TrainingCurve, from_json
from small_runs import SETTINGS, run_small


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


def test_scores_stand_beside_the_losses_of_their_curve() -> None:
    log = LossLog(_Heard(), per_epoch=10)
    log.update("search", 1, 4, macs=3.0, score=0.5)  # of a network that is judged
    log.update("dense", 5, 20, loss=1.0)
    log.update("dense", 8, 20, loss=0.75, score=0.25)
    log.update("dense", 8, 20, loss=0.75, score=0.25)
    log.update("dense", 20, 20, loss=0.5, score=math.nan)
    log.update("finetune", 5, 20, loss=0.7, score=0.875)
    wanted = (
        TrainingCurve("dense", (0.5, 0.8, 2.0), (1.0, 0.75, 0.5), (0.8,), (0.25,)),
        TrainingCurve("finetune", (0.5,), (0.7,), (0.5,), (0.875,)),
    )
    assert log.curves == wanted
    again = LossLog(_Heard(), per_epoch=10, curves=log.curves)
    again.update("finetune", 10, 20, loss=0.5, score=0.9)
    assert again.curves[1] == TrainingCurve("finetune", (0.5, 1.0), (0.7, 0.5), (0.5, 1.0), (0.875, 0.9))


def test_a_run_keeps_scores_on_the_way_and_is_the_same_without(tmp_path: Path) -> None:
    settings = replace(SETTINGS, score_every=0.5)
    scored = run_small(tmp_path / "run", settings=settings).record
    plain = run_small(settings=replace(SETTINGS, score_every=0)).record
    dense, *_, tuned = scored.training
    assert dense.score_epochs == (0.5, 1.0, 1.5)
    assert tuned.score_epochs == (0.5, 1.0)
    assert all(0 <= score <= 1 for score in (*dense.scores, *tuned.scores))
    assert {one.scores for one in plain.training} == {()}
    assert scored.path == tuple(
        replace(point, weights=new.weights) for point, new in zip(plain.path, scored.path, strict=True)
    )
    assert (scored.score_after, scored.removed_channels) == (plain.score_after, plain.removed_channels)
    kept = from_json(Record, (tmp_path / "run" / "record.json").read_text())
    assert kept.training == scored.training
    (depth,) = {one.scores for one in scored.training if one.phase in ("depth", "width")}
    assert depth == ()


def test_networks_that_a_search_tries_are_not_scored_on_the_way() -> None:
    settings = replace(SETTINGS, score_every=0.25, path_points=2)
    training = run_small(settings=settings, target=Target(drop=0.5)).record.training
    tuned = [one for one in training if one.phase == "finetune"]
    assert tuned
    assert {one.scores for one in tuned} == {()}
    assert training[0].phase == "dense"
    assert len(training[0].scores) == 7
