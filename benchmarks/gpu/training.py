"""A cell: a network is made, fine-tuned for as many epochs as all others, and judged; resumable at every epoch."""

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.gpu.cells import Cell
from benchmarks.gpu.clock import OutOfTime
from benchmarks.gpu.lab import TASK, Lab, fast_kernels, first_that_works, speed_of
from benchmarks.gpu.making import made
from benchmarks.gpu.timing import time_shares
from torch import Tensor, nn

from amsc import Settings
from amsc.errors import TrainingError
from amsc.jobs.preparation import DISTILLATION
from amsc.measurement import count_macs
from amsc.records import from_json, to_json
from amsc.surgery import CutPlan, apply_plan, plan_of
from amsc.training import (
    Distillation,
    OptimizerChoice,
    TrainSettings,
    TrainState,
    evaluate,
    finetune,
    reestimate_batchnorm,
)

__all__ = ["DENSE_RATE", "RATES", "cut_ahead", "taught_by", "train_cell", "tuned"]

SAVED_EVERY = 30.0
"""Seconds of training between two checkpoints."""
RATES = (0.02, 0.05, 0.1)
"""Learning rates at batch 128 that are tried; they grow with the batch."""
DENSE_RATE = 0.05
TUNED_SHARE = 0.05
"""The epochs of each trial of a rate, as a share of the schedule."""
Teach = Callable[[Any, Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Begun:
    """A network, how far its training is, and what is known of how it was made."""

    model: nn.Module
    state: TrainState
    facts: Mapping[str, Any]

    def to_plain(self) -> dict[str, Any]:
        """As a checkpoint has it: the network is the plan that leads to it, and weights."""
        plan = plan_of(self.model)
        return {"plan": to_json(plan) if plan else "", "train": self.state.to_plain(), "facts": dict(self.facts)}


def train_cell(lab: Lab, cell: Cell, *, rate: float, captured: bool) -> dict[str, Any]:
    """The result of a cell, gone on with from its checkpoint if there is one.

    Raises:
        OutOfTime: the call is over; there is a checkpoint.
        TargetError: the share cannot be reached.
        TrainingError: the loss is not finite.
    """
    begun = _kept(lab, cell) or _made_now(lab, cell)
    dense = lab.opened(cell.network) if cell.way == "dense" else lab.dense(cell.network)
    teach = taught_by(dense) if cell.how.is_taught else None
    ways = ("captured", "eager") if captured else ("eager",)
    seconds, words = first_that_works({way: _trainer(lab, cell, begun, teach, rate, way) for way in ways})
    reestimate_batchnorm(begun.model, lab.data)
    if cell.way == "dense":
        lab.store.save_dense(cell.network, begun.model.state_dict())
    facts = {key: value for key, value in begun.facts.items() if key != "seconds_before"}
    steps = {"learning_rate": rate * cell.batch / 128, "training_seconds": round(seconds, 1), "steps": words}
    return {**vars(cell), **facts, **steps, **_judged(lab, begun.model, dense)}


def taught_by(dense: nn.Module) -> Teach:
    """Soft targets of a network, as fine-tuning has them by default."""
    teacher = copy.deepcopy(dense)
    speed_of(captured=False).arrange(teacher)
    return Distillation(teacher, DISTILLATION, Settings().temperature)


def tuned(lab: Lab, network: str, *, captured: bool) -> dict[str, Any]:
    """The learning rate (at batch 128) with which short training of a cut network leads to the best validation score.

    Raises:
        TrainingError: the loss is not finite with any.
    """
    cell = Cell(network, "L1, uniform, no distillation", 0.41, 0, lab.epochs, lab.batch)
    model, _ = made(lab, cell, lab.dense(network))
    epochs = min(lab.epochs, max(1.0, TUNED_SHARE * lab.epochs))
    found: dict[str, float | None] = {}
    for rate in RATES:
        trial = copy.deepcopy(model)
        try:
            with fast_kernels():
                finetune(trial, lab.data, TASK, _settings(cell, epochs, rate, captured=captured))
        except TrainingError:
            found[str(rate)] = None
            continue
        reestimate_batchnorm(trial, lab.data)
        found[str(rate)] = _score(lab, trial, "validation")
    good = {name: value for name, value in found.items() if value is not None}
    if not good:
        raise TrainingError(f"{network}: the loss became infinite with every learning rate of {RATES}")
    return {"network": network, "epochs": epochs, "validation": found, "rate": float(max(good, key=good.__getitem__))}


def cut_ahead(lab: Lab, cell: Cell) -> None:
    """Make the network of a cell and keep it for a later call, if it is not kept yet.

    Raises:
        TargetError: the share cannot be reached.
    """
    dense = lab.store.digest(cell.network)
    if lab.store.prepared(cell.cut, dense) is None:
        begun = _made(lab, cell)
        lab.store.prepare(cell.cut, dense, replace(begun, facts={**begun.facts, "is_ahead": True}).to_plain())


def _kept(lab: Lab, cell: Cell) -> Begun | None:
    """The network as far as an earlier call trained it, or as it was cut ahead."""
    saved = lab.store.checkpoint(cell.name)
    if saved is None and cell.is_cut:
        saved = lab.store.prepared(cell.cut, lab.store.digest(cell.network))
    if saved is None:
        return None
    model = lab.opened(cell.network)
    if saved["plan"]:
        model = apply_plan(model, from_json(CutPlan, saved["plan"]), fold=False)
    return Begun(model, TrainState(**saved["train"]), saved["facts"])


def _made_now(lab: Lab, cell: Cell) -> Begun:
    """The network of the cell, as it is before it is fine-tuned; kept at once."""
    lab.store.began(cell.name, lab.clock.left())
    begun = _made(lab, cell)
    lab.store.save_checkpoint(cell.name, begun.to_plain())
    lab.store.ended(cell.name)
    return begun


def _made(lab: Lab, cell: Cell) -> Begun:
    start, words = time.monotonic(), {}
    if cell.way == "dense":
        model = lab.opened(cell.network)
    elif not cell.is_cut:
        model = lab.dense(cell.network)
    else:
        model, words = made(lab, cell, lab.dense(cell.network))
    facts = {"cut_seconds": round(time.monotonic() - start, 1), "cut": words, "seconds_before": 0.0}
    facts["accuracy_before_training"] = _score(lab, model, "test")
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    return Begun(model, TrainState(0, weights, {}, 0.0), facts)


def _trainer(lab: Lab, cell: Cell, begun: Begun, teach: Teach | None, rate: float, way: str) -> Callable[[], float]:
    """Trains from where `begun` stands; gives the seconds that this took, with those of earlier calls."""
    epochs = (1 - cell.how.walked) * cell.epochs
    settings = _settings(cell, epochs, rate, captured=way == "captured")

    def train() -> float:
        keeper = _Keeper(lab, cell, begun, math.ceil(epochs))
        options = {} if teach is None else {"teach": teach}
        with fast_kernels():
            finetune(begun.model, lab.data, TASK, settings, state=begun.state, save=keeper, **options)
        return keeper.seconds()

    return train


def _settings(cell: Cell, epochs: float, rate: float, *, captured: bool) -> TrainSettings:
    choice = OptimizerChoice(rate * cell.batch / 128)
    return TrainSettings("finetune", epochs, choice, seed=cell.seed, speed=speed_of(captured=captured))


class _Keeper:
    """Hears of every epoch: keeps the state twice a minute and when the time is over, which it says by `OutOfTime`."""

    def __init__(self, lab: Lab, cell: Cell, begun: Begun, epochs: int) -> None:
        self._lab, self._cell, self._begun, self._epochs = lab, cell, begun, epochs
        self._start = self._saved = self._last = time.monotonic()

    def seconds(self) -> float:
        """What training took until now, in all calls."""
        return float(self._begun.facts["seconds_before"]) + time.monotonic() - self._start

    def __call__(self, state: TrainState) -> None:
        now = time.monotonic()
        epoch, self._last = now - self._last, now
        is_over = state.epochs < self._epochs and self._lab.clock.left() < 1.5 * epoch
        if is_over or now - self._saved > SAVED_EVERY:
            facts = {**self._begun.facts, "seconds_before": self.seconds()}
            kept = Begun(self._begun.model, state, facts)
            self._lab.store.save_checkpoint(self._cell.name, kept.to_plain())
            self._saved = now
        if is_over:
            raise OutOfTime(f"{self._cell.name}: {state.epochs} of {self._epochs} epochs are done")


def _judged(lab: Lab, model: nn.Module, dense: nn.Module) -> dict[str, Any]:
    example = lab.data.example_inputs()
    plan = plan_of(model)
    return {
        "accuracy": _score(lab, model, "test"),
        "validation": _score(lab, model, "validation"),
        "macs_share": round(count_macs(model, example) / count_macs(dense, example), 4),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "removed_blocks": list(plan.blocks) if plan else [],
        "time_share": time_shares(lab, dense, [model])[0],
    }


def _score(lab: Lab, model: nn.Module, split: str) -> float:
    """Accuracy, %."""
    return round(100 * evaluate(model, lab.data, split, TASK).score, 2)
