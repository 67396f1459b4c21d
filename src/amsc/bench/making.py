"""How a cell comes about: the dense network, its cut, the fine-tuning that is the same for all, and the judgement."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from amsc.bench.outsiders import cut_outside
from amsc.bench.recipe import TUNING, Cell, Method, Recipe
from amsc.bench.store import digest, plain_name, said_settings
from amsc.borrowing import copied
from amsc.data import Data
from amsc.errors import ModelError
from amsc.jobs.checks import chosen_task
from amsc.jobs.compress import compress
from amsc.jobs.preparation import taught
from amsc.measurement import count_macs, time_in_turns
from amsc.settings import Settings
from amsc.storage import has_state
from amsc.surgery import load, plan_of, save
from amsc.tasks import Task
from amsc.training import (
    Distillation,
    OptimizerChoice,
    Speed,
    TrainSettings,
    evaluate,
    finetune,
    reestimate_batchnorm,
)

__all__ = ["Judged", "Lab"]

BATCHES = (1, 64)
"""How many examples the calls have that are timed."""
ROUNDS = {1: 40, 64: 10}


@dataclass(frozen=True, eq=False)
class Judged:
    """A network that was made: its scores on each test example, its costs as shares of the dense one's, the blocks
    that are gone, and the seconds of cutting and of training."""

    scores: Tensor
    dense_score: float
    macs_share: float
    parameters_share: float
    time_shares: Mapping[str, float]
    removed_blocks: tuple[str, ...]
    seconds: Mapping[str, float]


class Lab:
    """Makes the networks of a bench. Dense networks and cuts are kept in `folder`, so that they are made once.

    Args:
        networks: the networks by the names of the recipe, as they come; they are not changed.
        task: classification if None.
        facts: see `Store`.
    """

    def __init__(
        self,
        recipe: Recipe,
        networks: Mapping[str, nn.Module],
        data: Data,
        task: Task | None,
        folder: Path,
        facts: Mapping[str, str],
    ) -> None:
        self._recipe, self._data, self._given, self._folder, self._facts = recipe, data, task, folder, facts
        self._task = chosen_task(task, recipe.settings)
        self._networks = networks
        self._dense: dict[str, tuple[nn.Module, float]] = {}
        self._cuts: dict[Path, tuple[nn.Module, float]] = {}

    def made(self, cell: Cell) -> Judged:
        """The network of a cell, judged.

        Raises:
            AmscError, RuntimeError: whatever kept it from being made.
        """
        dense, dense_score = self.dense(cell.network)
        model, cutting = self._before_training(cell)
        start = time.perf_counter()
        self._tune(model, cell)
        seconds = {"cut": round(cutting, 2), "train": round(time.perf_counter() - start, 2)}
        scores = evaluate(model, self._data, "test", self._task).per_example
        example, plan = self._data.example_inputs(1), plan_of(model)
        return Judged(
            scores,
            dense_score,
            count_macs(model, example) / count_macs(dense, example),
            _parameters(model) / _parameters(dense),
            self._time_shares(dense, model),
            () if plan is None else tuple(plan.blocks),
            seconds,
        )

    def dense(self, name: str) -> tuple[nn.Module, float]:
        """The dense network of a name, trained, and its test score."""
        if name not in self._dense:
            said = [self._facts[name], self._recipe.dense_epochs, said_settings(self._recipe.settings)]
            folder = self._folder / "dense" / f"{plain_name(name)}-{digest(said)}"
            network = self._networks[name]
            if folder.is_dir():
                model = load(folder, lambda: copied(network))
            else:
                model = copied(network)
                self._train(model, "dense", self._recipe.dense_epochs, self._recipe.settings, {})
                save(model, folder)
            self._dense[name] = model, evaluate(model.eval(), self._data, "test", self._task).score
        return self._dense[name]

    def _before_training(self, cell: Cell) -> tuple[nn.Module, float]:
        """A copy of the network that a cell trains, and the seconds that cutting it took."""
        method = self._recipe.methods[cell.method]
        if method.control == "dense":
            return copied(self.dense(cell.network)[0]), 0.0
        if method.control == "scratch":
            small, _ = self._cut(replace(cell, method=method.like))
            torch.manual_seed(cell.seed)
            return _forgotten(copied(small)), 0.0
        small, seconds = self._outside(cell, method.outsider) if method.outsider else self._cut(cell)
        return copied(small), seconds

    def _outside(self, cell: Cell, outsider: str) -> tuple[nn.Module, float]:
        """The network that an outsider has cut, and the seconds it took."""
        key = self._folder / "outside" / digest([cell.network, outsider, cell.budget])
        if key not in self._cuts:
            settings, start = self._recipe.settings, time.perf_counter()
            dense = self.dense(cell.network)[0]
            model = cut_outside(outsider, dense, cell.budget, self._data, self._task, settings)
            self._cuts = {key: (model, time.perf_counter() - start)}
        return self._cuts[key]

    def _cut(self, cell: Cell) -> tuple[nn.Module, float]:
        """The network of a cell before its fine-tuning, and the seconds it took; from a run in a folder of its own,
        which goes on where it was stopped. Cells that differ in their fine-tuning alone share it."""
        recipe = self._recipe
        settings = recipe.settings_of(cell)
        if not recipe.methods[cell.method].walked:
            settings = replace(settings, **{name: getattr(recipe.settings, name) for name in TUNING})
        said = [self._facts[cell.network], recipe.dense_epochs, cell.budget, said_settings(settings)]
        folder = self._folder / "cuts" / digest(said)
        if folder not in self._cuts:
            result = compress(
                self.dense(cell.network)[0],
                self._data.example_inputs(1),
                self._data,
                target=cell.budget,
                task=self._given,
                settings=settings,
                out=folder,
                model_name=cell.network,
                resume=has_state(folder / "state" / "state.pt"),
                progress=False,
            )
            self._cuts = {folder: (result.model, sum(result.record.seconds.values()))}  # the next cells need no other
        return self._cuts[folder]

    def _tune(self, model: nn.Module, cell: Cell) -> None:
        """Fine-tuning as all methods have it: the network of the last epoch, never that of the best.

        From random weights it takes as many epochs more as the dense network had."""
        method, epochs = self._recipe.methods[cell.method], self._recipe.tuning_epochs(cell)
        settings = self._tuning_settings(method, cell.seed)
        options: dict[str, Any] = {}
        if settings.distillation:
            teacher = copied(self.dense(cell.network)[0])
            options["teach"] = Distillation(teacher, settings.distillation, settings.temperature)
        if method.control == "scratch":
            epochs += self._recipe.dense_epochs
        self._train(model, "finetune", epochs, settings, {"ema": settings.ema}, **options)

    def _tuning_settings(self, method: Method, seed: int) -> Settings:
        changes = {key: value for key, value in method.changes.items() if key in TUNING}
        return taught(replace(self._recipe.settings, **changes, seed=seed), self._task)

    def _train(
        self, model: nn.Module, phase: str, epochs: float, settings: Settings, more: Mapping[str, Any], **options: Any
    ) -> None:
        if not epochs:
            return
        speed = Speed(settings.precision, settings.channels_last, settings.capture)
        rate = settings.dense_learning_rate if phase == "dense" else settings.finetune_learning_rate
        choice = OptimizerChoice(rate, settings.optimizer, settings.momentum, settings.weight_decay)
        finetune(
            model,
            self._data,
            self._task,
            TrainSettings(phase, epochs, choice, settings.seed, speed=speed, **more),
            **options,
        )
        reestimate_batchnorm(model, self._data)

    def _time_shares(self, dense: nn.Module, model: nn.Module) -> dict[str, float]:
        """Latencies as shares of the dense network's, for the batch sizes that the data can give."""
        most = self._data.num_examples("train")
        found = {}
        for batch in (batch for batch in BATCHES if batch <= most):
            inputs = self._data.example_inputs(batch)
            (whole, _), (small, _) = time_in_turns([dense, model], inputs, rounds=ROUNDS[batch])
            found[str(batch)] = small / whole
        return found


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _forgotten(model: nn.Module) -> nn.Module:
    """The network with the weights that its modules begin with.

    Raises:
        ModelError: a parameter belongs to a module that cannot say how it begins.
    """
    for name, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        reset: Callable[[], None] | None = getattr(module, "reset_parameters", None)
        if reset is not None:
            reset()
        elif own:
            raise ModelError(
                f"{name or 'the network'} ({type(module).__name__}) has no reset_parameters for {', '.join(own)}"
            )
    return model
