"""A run in its stages (dense, path, finetune), each of which takes a saved state and leaves the next one."""

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from typing import Any

import torch
from torch import Tensor, nn

from amsc.borrowing import copied
from amsc.data import Data
from amsc.jobs.drop_search import Search, removal_of
from amsc.jobs.run_folder import RunFolder, RunState
from amsc.limits.budget import Budget
from amsc.limits.measured import is_met, keep_to_limits
from amsc.limits.target import Target, format_target
from amsc.measurement import measure, time_in_turns
from amsc.records import Measurement, PathPoint, Record
from amsc.settings import Settings, plain_settings
from amsc.structure import Structure
from amsc.structure.costing import predicted_macs, predicted_parameters
from amsc.structure.cutting import after_removal
from amsc.surgery import CutPlan, apply_plan, cut_tensors, match_channels, plan_cut, save, stand_in, unfolded, verify
from amsc.tasks import Task
from amsc.training import (
    Distillation,
    Progress,
    Removal,
    Shrunk,
    Snapshot,
    Speed,
    Trail,
    TrainSettings,
    WalkSettings,
    WalkState,
    evaluate,
    finetune,
    mean_loss,
    num_channels,
    reestimate_batchnorm,
    walk,
)

__all__ = ["Job", "speed_of", "versions", "walk_settings"]


@dataclass(frozen=True, eq=False)
class Job:
    """What stays the same during a run. `dense` is the job's own copy of the model and is trained in place."""

    dense: nn.Module
    budget: Budget
    example_inputs: Any
    data: Data
    task: Task
    settings: Settings
    name: str
    target: Target
    folder: RunFolder
    progress: Progress

    @property
    def structure(self) -> Structure:
        """The dense network's, with the limits of the target."""
        return self.budget.structure

    @property
    def trail(self) -> Trail:
        """What the networks of the path are made with."""
        choices = walk_settings(self.settings, self.structure)
        return Trail(self.dense, self.structure, self.data, self.task, self.shrink, choices)

    def run(self, state: RunState) -> tuple[RunState, Shrunk]:
        """All stages from `state` on; the last state, and the small network."""
        stages: Mapping[str, Callable[[RunState], RunState]] = {
            "dense": self.train_dense,
            "path": self.walk,
            "finetune": self.finetune,
        }
        if state.dense is not None:
            self.dense.load_state_dict(dict(state.dense))
        while state.stage in stages:
            state = stages[state.stage](state)
        small = self._small(state)
        assert state.small is not None, "the last stage has set it"
        small.model.load_state_dict(dict(state.small))
        return state, small

    def train_dense(self, state: RunState) -> RunState:
        """Train the dense network if asked to, judge and measure it; it is the first point of the path."""
        clock = _Clock("dense", state)
        self._train(self.dense, "dense", self.settings.dense_epochs, self.settings.dense_learning_rate, state, clock)
        self._match_channels()
        point = self._point("dense", state, self.structure, Removal(), self.dense, self.settings.dense_epochs)
        weights = _state_of(self.dense)
        state = replace(
            state,
            stage="path",
            train=None,
            dense=weights,
            points=(self.folder.save_point(point, weights, None),),
            score_before=evaluate(self.dense, self.data, "test", self.task).score,
            before=measure(self.dense, self.example_inputs),
        )
        return self._saved(state, clock)

    def _match_channels(self) -> None:
        """Bring plain convolutions that may go near to the identity, and prove that the network is the same."""
        if not self.settings.plain:
            return
        before = copied(self.dense)
        if match_channels(self.dense, self.structure):
            verify(before, self.dense, self.plan(Removal()), self.example_inputs)

    def walk(self, state: RunState) -> RunState:
        """The path; the state is saved at every point."""
        clock = _Clock("path", state)
        path = walk(
            self.dense,
            self.structure,
            self.data,
            self.task,
            shrink=self.shrink,
            target_cost=self.budget.floor,
            settings=walk_settings(self.settings, self.structure),
            stand_in=stand_in,
            state=state.walk,
            progress=self.progress,
        )
        for point, snapshot, walk_state in path:
            points = self._with(state.points, replace(point, index=len(state.points)), snapshot)
            state = self._saved(replace(state, walk=walk_state, points=points), clock)
        if self.target.drop is None:
            assert state.walk is not None, "walked"
            walk_state = self.kept_to_limits(state.walk)
            state = replace(state, walk=walk_state)
        return self._saved(replace(state, stage="finetune"), clock)

    def _with(self, points: tuple[PathPoint, ...], point: PathPoint, snapshot: Snapshot) -> tuple[PathPoint, ...]:
        """The points with one more. Of those of one structure the last keeps its weights, which were trained for
        longest; the dense network keeps its own."""
        if not snapshot.removal:
            return (*points, point)
        older = (replace(known, weights=None) if removal_of(known) == snapshot.removal else known for known in points)
        return (*older, self.folder.save_point(point, snapshot.weights, self.plan(snapshot.removal)))

    def kept_to_limits(self, walked: WalkState) -> WalkState:
        """The end of a path, cut down to the budget, also where it is only measured to be above a limit."""
        snapshot, error = keep_to_limits(self.trail, self.budget, self.target, self.example_inputs, walked.snapshot)
        return replace(walked, snapshot=snapshot, error=max(error, walked.error))

    def finetune(self, state: RunState) -> RunState:
        """Train the small network, judge, prove and measure it, and write model and record.

        Where the target says how much may be lost, the smallest network of the path that keeps to it is looked for.

        Raises:
            TargetError: every network of the path loses more.
        """
        clock = _Clock("finetune", state)
        if self.target.drop is None:
            state = self._finetuned(state, self._end(state), state.points[-1].epochs, clock)
        else:
            state = self._search(self.target.drop, clock).run(state)
        small = self._small(state)
        assert state.small is not None, "set by the training"
        small.model.load_state_dict(dict(state.small))
        state = clock.lap(state)
        state = replace(state, stage="done", record=self._record(state, small))
        if self.folder.path is not None:
            save(small.model, self.folder.path / "model")
        return self._saved(state, clock)

    def _finetuned(self, state: RunState, snapshot: Snapshot, trained: float, clock: "_Clock") -> RunState:
        """The state with the network of `snapshot`, trained for `trained` epochs so far, fine-tuned as its `small` one,
        and a point for it."""
        epochs = self.settings.finetune_epochs
        small = self.trail.rebuild(snapshot)
        self._train(small.model, "finetune", epochs, self.settings.finetune_learning_rate, state, clock)
        point = self._point("finetune", state, small.structure, snapshot.removal, small.model, trained + epochs)
        return replace(state, points=(*state.points, point), small=_state_of(small.model), train=None)

    def _search(self, drop: float, clock: "_Clock") -> Search:
        return Search(
            self.structure,
            self.budget.met,
            drop,
            self.task.higher_is_better,
            snapshot=lambda point: Snapshot(removal_of(point), self.folder.read_weights(point)),
            cut=self._cut_down,
            keeps=self._keeps,
            finetune=lambda state, snapshot, epochs: self._finetuned(state, snapshot, epochs, clock),
            save=lambda state: self._saved(state, clock),
        )

    def _keeps(self, snapshot: Snapshot) -> bool:
        """Whether a network keeps to the limits that are measured."""
        small = self.trail.rebuild(snapshot)
        return is_met(self.dense, small.model, self.target, self.example_inputs)

    def _cut_down(self, snapshot: Snapshot, goal: int) -> Snapshot:
        return self.trail.cut_down(snapshot, goal)[0]

    def shrink(self, model: nn.Module, structure: Structure, removal: Removal) -> Shrunk:
        """A cut and verified copy of `model`; a plain copy where nothing goes."""
        if not removal:
            return Shrunk(copied(model), structure, dict, 0.0)
        plan = plan_cut(structure, channels=removal.channels, blocks=removal.blocks)
        small = apply_plan(model, plan, self.example_inputs)
        error = verify(model, small, plan, self.example_inputs)
        after = after_removal(structure, removal.channels, removal.blocks)
        return Shrunk(small, after, lambda tensors: cut_tensors(tensors, plan), error)

    def final_plan(self, state: RunState) -> CutPlan:
        """The plan that leads from the dense network to the one at the end of the path."""
        return self.plan(self._end(state).removal)

    def _train(
        self, model: nn.Module, phase: str, epochs: float, learning_rate: float, state: RunState, clock: "_Clock"
    ) -> None:
        """Train `model` in place, from where `state` stands, saving after every epoch; BatchNorm is estimated anew."""
        choices, is_last = self.settings, phase == "finetune"
        if not epochs:
            return
        options: dict[str, Any] = {}
        if is_last and choices.distillation:
            options["teach"] = Distillation(self.dense, choices.distillation, choices.temperature)
        ema = choices.ema if is_last else 0.0
        finetune(
            model,
            self.data,
            self.task,
            TrainSettings(
                phase,
                epochs,
                learning_rate,
                choices.momentum,
                choices.weight_decay,
                choices.seed,
                ema,
                choices.optimizer,
                speed_of(choices),
            ),
            state=state.train,
            save=lambda train: self._saved(replace(state, train=train), clock),
            progress=self.progress,
            **options,
        )
        reestimate_batchnorm(model, self.data)

    def _point(
        self, phase: str, state: RunState, structure: Structure, removal: Removal, model: nn.Module, epochs: float
    ) -> PathPoint:
        return PathPoint(
            phase=phase,
            index=len(state.points),
            strength=0.0,
            epochs=epochs,
            macs=predicted_macs(structure),
            parameters=predicted_parameters(structure),
            blocks_left=len(structure.outer_blocks),
            channels_left=num_channels(structure),
            train_loss=mean_loss(model, self.data, self.task),
            score=evaluate(model, self.data, "validation", self.task).score,
            removed_blocks=removal.blocks,
            removed_channels=removal.channels,
        )

    def _record(self, state: RunState, small: Shrunk) -> Record:
        assert state.before is not None, "the first stage has set it"
        before, after = self._timed_in_turns(state.before, measure(small.model, self.example_inputs), small.model)
        assert state.walk is not None, "the second stage has set it"
        removal = self._end(state).removal
        return Record(
            model=self.name,
            data=self.data.name,
            target=format_target(self.target),
            settings=plain_settings(self.settings),
            score_name=self.task.name,
            score_before=state.score_before,
            score_after=evaluate(small.model, self.data, "test", self.task).score,
            before=before,
            after=after,
            removed_blocks=removal.blocks,
            removed_channels=removal.channels,
            blocks_before=len(self.structure.outer_blocks),
            channels_before=num_channels(self.structure),
            verification_error=max(state.walk.error, self._final_error(removal, small)),
            path=state.points,
            versions=versions(),
            seconds=state.seconds,
        )

    def _timed_in_turns(
        self, before: Measurement, after: Measurement, small: nn.Module
    ) -> tuple[Measurement, Measurement]:
        """Both with latencies that were taken at the same time."""
        (dense, dense_spread), (cut, cut_spread) = time_in_turns(
            [self.dense, small], self.example_inputs, rounds=after.latency_runs
        )
        return (
            replace(before, latency_seconds=dense, latency_spread_seconds=dense_spread),
            replace(after, latency_seconds=cut, latency_spread_seconds=cut_spread),
        )

    def _final_error(self, removal: Removal, small: Shrunk) -> float:
        """Proof that plan and weights are enough to make the small network again, and that it costs what was predicted.

        The dense network cut by the composed plan and filled with the small network's weights must give its outputs."""
        plan = self.plan(removal)
        return verify(unfolded(self.dense, small.model, plan), small.model, plan, self.example_inputs)

    def _small(self, state: RunState) -> Shrunk:
        """The network at the end of the path, as it was there."""
        return self.trail.rebuild(self._end(state))

    def _end(self, state: RunState) -> Snapshot:
        assert state.walk is not None, "the path has been walked"
        return state.walk.snapshot

    def plan(self, removal: Removal) -> CutPlan:
        """The plan that takes `removal` from the dense network."""
        return plan_cut(self.structure, channels=removal.channels, blocks=removal.blocks)

    def _saved(self, state: RunState, clock: "_Clock") -> RunState:
        state = clock.lap(state)
        self.folder.save(state)
        return state


@dataclass(frozen=True)
class _Clock:
    """Adds the time since it was made to what a stage had taken before."""

    stage: str
    before: RunState
    start: float = field(default_factory=time.monotonic)

    def lap(self, state: RunState) -> RunState:
        seconds = dict(self.before.seconds)
        seconds[self.stage] = seconds.get(self.stage, 0.0) + time.monotonic() - self.start
        return replace(state, seconds=seconds)


def _state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def walk_settings(settings: Settings, structure: Structure) -> WalkSettings:
    """The choices of the path among all of a run."""
    return WalkSettings(
        seed=settings.seed,
        method=settings.method,
        epochs=settings.path_epochs,
        points=settings.path_points,
        depth_share=settings.depth_share,
        depth_rule=settings.depth_rule,
        weights=settings.weights,
        theta_hat=settings.theta_hat,
        currency=settings.currency,
        optimizer=settings.optimizer,
        learning_rate=settings.path_learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        epochs_before=settings.dense_epochs,
        rounding=settings.rounding(structure),
        streams=settings.streams,
        speed=speed_of(settings),
    )


def speed_of(settings: Settings) -> Speed:
    """How training computes."""
    return Speed(settings.precision, settings.channels_last)


def versions() -> dict[str, str]:
    """Versions of what the result depends on."""
    try:
        own = metadata.version("amsc")
    except metadata.PackageNotFoundError:  # run from a source tree that is not installed
        own = "unknown"
    return {"amsc": own, "torch": torch.__version__, "python": platform.python_version()}
