"""The AMSC path with a budget: depth first, then width, warm-started, cutting what is zero while walking."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from amsc.data import Data
from amsc.errors import NonFiniteLossError, TrainingError
from amsc.penalty import Penalty
from amsc.progress import NoProgress, Progress
from amsc.records import NormTrace, PathPoint
from amsc.structure.costing import predicted_cost, predicted_macs, predicted_parameters
from amsc.structure.structure import BlockCall, Structure
from amsc.tasks import Task
from amsc.training.gates.scan_gates import Recovery, StandIn
from amsc.training.path.depth_rule import one_standard_error_choice
from amsc.training.path.equal_cost import depth_at_equal_cost
from amsc.training.path.memo import Memo, NoMemo
from amsc.training.path.networks import Trail, copied_tensors
from amsc.training.path.piece import Piece
from amsc.training.path.schedule import Schedule, schedule_of
from amsc.training.path.state import Candidate, Snapshot, WalkSettings, WalkState
from amsc.training.path.strength import StrengthControl
from amsc.training.path.thinning import Cut, Thinning
from amsc.training.removal.removed import Removal, Repair, Shrink, Shrunk, compose_removals
from amsc.training.removal.to_cost import blocks_above, cut_to_target, cut_zeros
from amsc.training.steps.evaluation import Evaluation, evaluate, mean_loss, reestimate_batchnorm
from amsc.training.steps.finetune import MOST_HALVINGS, given_up
from amsc.training.steps.loop import Batches, Stretch, train_steps
from amsc.training.steps.optimizers import (
    Moments,
    OptimizerChoice,
    cut_moments,
    make_optimizer,
    moments_of,
    restore_moments,
)
from amsc.training.steps.proximal import ProximalStep
from amsc.training.steps.step import device_of

__all__ = ["num_channels", "walk"]


def _identity(call: BlockCall | None) -> nn.Module:
    if call is not None:
        raise TrainingError("blocks of this network need stand-ins: give walk(..., stand_in=amsc.surgery.stand_in)")
    return nn.Identity()


def walk(
    model: nn.Module,
    structure: Structure,
    data: Data,
    task: Task,
    *,
    shrink: Shrink,
    target_cost: int,
    settings: WalkSettings,
    repair: Repair | None = None,
    recovery: Recovery | None = None,
    memo: Memo = NoMemo(),  # noqa: B008 - it has no state
    stand_in: StandIn = _identity,
    thinning: Thinning | None = None,
    state: WalkState | None = None,
    progress: Progress = NoProgress(),  # noqa: B008 - it has no state
) -> Iterator[tuple[PathPoint, Snapshot, WalkState]]:
    """The points of the path, each with its network and with the state from which the walk can go on after it.

    The penalty drives blocks to zero first, then channels; its strength is steered so that the cost falls to each
    phase's goal as planned (`CostPlan`). A piece ends with a settling part at a tenth of the learning rate; what is
    zero in 90 % of it is cut at once, BatchNorm is re-estimated (the network goes on with these statistics) and the
    network is judged on the validation split; blocks that stay recover in that part of a depth piece. The weights of
    `Penalty` come from theta_hat, which is `model` unless the settings say otherwise, sliced as the network shrinks;
    "fisher" ones are measured anew for each piece. After the last depth piece, or the first whose score falls out of
    the one-standard-error rule, the walk goes back to the chosen point (which may be the dense network) and on with
    width. The last piece ends at `target_cost` or just below; what is not zero by then and has to go **does change the
    function** (see `cut_to_target`).

    With the method "gates" there is no penalty: every piece begins by scanning the network (see `choose_gates`) and
    cutting what closes first, down to the plan, which changes the function, and then trains what is left.

    With the depth rule "equal-cost" no piece is for depth: the first point is the best of some networks at the target
    (see `depth_at_equal_cost`), from whose blocks, with all channels, the width phase goes on. Without any epochs the
    path is a ladder of such networks: `points` costs down to the target, each the same share of the one before.

    Each piece is a function of the state alone, so `walk(..., state=saved)` goes on exactly as it would have. A state
    of phase "done" yields nothing. `Trail.rebuild` makes a state's network. `model` is not changed.

    Args:
        model: the trained dense network.
        structure: its structure.
        shrink: cuts copies of models.
        target_cost: what the network may cost in the end.
        repair: gives back what cuts cost; None if nothing is to.
        recovery: says what is left of the prices of channels then, where gates are looked at; None: all of them.
        memo: what a search at equal cost asks before it makes a network, and tells what it found out.
        stand_in: makes what takes the place of a block while the gates are looked at; the method "gates" and the depth
            rule "equal-cost" ask.
        thinning: in which order blocks go at equal cost, and which channels then; None: by what losing them costs.

    Where a loss is no finite number a piece begins again, at half the learning rate, at most `MOST_HALVINGS` times.

    Raises:
        TrainingError: the loss is still not finite then.
        TargetError: no removal reaches the target.
    """
    trail = Trail(model, structure, data, task, shrink, settings, repair, recovery, memo=memo)
    schedule = schedule_of(settings, structure, data.num_batches("train"), target_cost)
    walker = _Walk(trail, schedule, stand_in, progress, thinning)
    state = walker.first_state() if state is None else state
    while state.phase != "done":
        point, snapshot, state = walker.advance(state)
        yield point, snapshot, state


def num_channels(structure: Structure, *, streams: bool = False) -> int:
    """How many channels may go one by one, those of residual streams only where they are asked for."""
    kinds = (group for group in structure.channels if group.removable and (streams or group.kind != "stream"))
    return sum(group.size for group in kinds)


@dataclass(frozen=True)
class _Step:
    """What a piece did: what it removed, the network without it, its moments, the mean loss, how it steered; whether
    BatchNorm has the statistics that the network needs; and the norms on the way."""

    removal: Removal
    cut: Shrunk
    moments: Moments
    loss: float
    control: StrengthControl
    is_settled: bool = False
    norms: NormTrace | None = None


@dataclass(frozen=True, eq=False)
class _Walk:
    """A way down a `trail`, as scheduled."""

    trail: Trail
    schedule: Schedule
    stand_in: StandIn
    progress: Progress
    thinning: Thinning | None = None

    def first_state(self) -> WalkState:
        """Before the first piece. The dense network is the first candidate: no depth may be worth its price."""
        snapshot = Snapshot(Removal(), copied_tensors(self.trail.dense.state_dict()))
        if self.schedule.is_at_equal_cost:
            return WalkState("depth", 0, 0, predicted_cost(self.trail.structure), snapshot)
        if not self.schedule.depth_pieces:
            return self._start_of_width(0, snapshot)
        judged = evaluate(self.trail.dense, self.trail.data, "validation", self.trail.task, speed=self.settings.speed)
        dense = Candidate(len(self.trail.structure.outer_blocks), judged.per_example, 0.0, snapshot)
        return WalkState("depth", 0, 0, predicted_cost(self.trail.structure), snapshot, candidates=(dense,))

    @property
    def settings(self) -> WalkSettings:
        """The choices of the trail."""
        return self.trail.settings

    def advance(self, state: WalkState) -> tuple[PathPoint, Snapshot, WalkState]:
        """One piece: train and cut (or, on the gate path, cut and train), judge, decide how to go on."""
        if state.phase == "depth" and self.schedule.is_at_equal_cost:
            return self._at_equal_cost(state)
        speed = self.settings.speed
        done, state = self._stepped(state)
        speed.arrange(done.cut.model)
        if not done.is_settled:
            reestimate_batchnorm(done.cut.model, self.trail.data, speed=speed)
        evaluation = evaluate(done.cut.model, self.trail.data, "validation", self.trail.task, speed=speed)
        snapshot = Snapshot(
            compose_removals(self.trail.structure, state.snapshot.removal, done.removal),
            copied_tensors(done.cut.model.state_dict()),
            done.moments,
            self._next_theta_hat(state, done.cut),
        )
        error = max(state.error, done.cut.error)
        now = replace(state, index=state.index + 1, snapshot=snapshot, control=done.control, error=error)
        point = replace(self._point(state.phase, now, done.cut, done.loss, evaluation), norms=done.norms)
        return point, snapshot, self._decide(now, done.cut.structure, evaluation)

    @cached_property
    def _thinning(self) -> Thinning:
        return self.thinning or Thinning(self.trail, self.schedule.target_cost)

    def _stepped(self, state: WalkState) -> tuple["_Step", WalkState]:
        """What a piece does, and the state that it began with: where a loss is no number it begins again, at half the
        learning rate."""
        step = self._gate_step if self.settings.method == "gates" else self._proximal_step
        live = self.trail.rebuild(state.snapshot)
        self.settings.speed.arrange(live.model)
        try:
            return step(live, state), state
        except NonFiniteLossError as error:
            if state.halved == MOST_HALVINGS:
                raise TrainingError(given_up(str(error), f"the path as it was after {state.index} pieces")) from error
        state, sizes = replace(state, halved=state.halved + 1), self.schedule.sizes
        rate = self._choice(state).learning_rate
        self.progress.update(state.phase, sum(sizes[: state.index]), sum(sizes), rolled_back=rate)
        return self._stepped(state)

    def _at_equal_cost(self, state: WalkState) -> tuple[PathPoint, Snapshot, WalkState]:
        """No piece: which blocks go is decided by what networks at the target are worth without them. Where nothing is
        trained, such networks are the points, one for each rung of the ladder; otherwise one is the first point, and
        the walk goes on with its blocks gone and all channels."""
        rungs = self.schedule.rungs or (self.schedule.target_cost,)
        is_last = state.index + 1 == len(rungs)
        near = None if is_last else len(state.snapshot.removal.blocks)
        tell = partial(self.progress.update, "search", state.index, len(rungs))
        tell()
        found = depth_at_equal_cost(
            self.trail, rungs[state.index], self.stand_in, thinning=self._thinning, near=near, tell=tell
        )
        chosen, snapshot = found.chosen, found.chosen.narrowed.snapshot()
        error = max(state.error, chosen.narrowed.live.error)
        now = replace(state, snapshot=snapshot, error=error)
        loss = mean_loss(chosen.narrowed.live.model, self.trail.data, self.trail.task)
        point = self._point("depth", now, chosen.narrowed.live, loss, chosen.judged)
        point = replace(point, candidates=found.rows())
        self.progress.update("search", state.index + 1, len(rungs), macs=point.macs, score=point.score)
        if self.schedule.rungs:
            now = replace(now, index=state.index + 1, phase="done" if is_last else "depth")
            return replace(point, index=state.index), snapshot, now
        thinned = chosen.thinned
        whole = Cut(self.trail.settled(thinned.live, thinned.removal), thinned.removal)
        return point, snapshot, self._start_of_width(0, whole.snapshot(), error=error)

    def _proximal_step(self, live: Shrunk, state: WalkState) -> "_Step":
        """Train with the penalty, then cut what it has emptied."""
        penalty = self._penalty(live, state)
        optimizer = ProximalStep(self._optimizer(live.model, state.snapshot.moments, state), penalty)
        piece = Piece(
            state.phase,
            live.model,
            live.structure,
            optimizer,
            self.schedule.position(state),
            state.control.afresh(),
            held=0.0 if self._measures_anew else state.depth_strength,
            rounding=self.settings.rounding,
        )
        hooks = {"before": piece.before, "after": piece.after, "watch": piece.watch}
        loss = self._train(live.model, optimizer, state, hooks)
        piece.end()
        removal = self._removal(live, piece, state)
        is_repaired = self.trail.repair is not None
        if is_repaired:  # towards the network as it is judged, and not again afterwards: that would undo it
            reestimate_batchnorm(live.model, self.trail.data, speed=self.settings.speed)
        cut = self.trail.cut(live, removal)
        moments = cut_moments(moments_of(live.model, optimizer), cut.slice_tensors)
        norms = piece.norms.trace(self._trained(state.index), self.trail.data.num_batches("train"))
        return _Step(removal, cut, moments, loss, piece.control, is_settled=is_repaired, norms=norms)

    def _penalty(self, live: Shrunk, state: WalkState) -> Penalty:
        source, theta_hat = self.settings.theta_hat, None
        if source == "refreshed":
            theta_hat = live.model.state_dict()
        elif state.snapshot.theta_hat:
            theta_hat = dict(state.snapshot.theta_hat)
        is_stage = source == "group-lasso" and state.index == 0
        return self.trail.penalty_of(live, "gl" if is_stage else self.settings.weights, theta_hat=theta_hat)

    @property
    def _measures_anew(self) -> bool:
        """Whether each piece has weights of its own, under which the depth strength of another piece means nothing."""
        return self.settings.weights == "fisher" or self.settings.theta_hat == "refreshed"

    def _next_theta_hat(self, state: WalkState, cut: Shrunk) -> dict[str, Tensor]:
        """theta_hat for the next piece, where it is neither the dense network nor the one of the piece."""
        if self.settings.theta_hat != "group-lasso":
            return {}
        return copied_tensors(
            cut.model.state_dict() if state.index == 0 else cut.slice_tensors(state.snapshot.theta_hat)
        )

    def _gate_step(self, live: Shrunk, state: WalkState) -> "_Step":
        """Scan the network and cut what closes first, then train the rest without a penalty: a proximal Newton step in
        the gates, and ordinary steps in the weights."""
        position = self.schedule.position(state)
        goal = round(position.plan.at(position.first + position.active))
        removal = self._scanned_removal(live, goal, state.phase) if predicted_cost(live.structure) > goal else Removal()
        cut = self.trail.cut(live, removal)
        optimizer = self._optimizer(cut.model, cut_moments(state.snapshot.moments, cut.slice_tensors), state)
        loss = self._train(cut.model, optimizer, state, {})
        return _Step(removal, cut, moments_of(cut.model, optimizer), loss, state.control)

    def _scanned_removal(self, live: Shrunk, goal: int, phase: str) -> Removal:
        """What a scan takes away: blocks, as long as the cost stays at the goal or above, or channels (and blocks where
        these are not enough), down to it."""
        choice = self.trail.scanned(live, self.stand_in)
        if phase == "depth":
            return Removal(blocks_above(choice.structure, choice.block_order, goal))
        return choice.removal(goal)

    def _choice(self, state: WalkState) -> OptimizerChoice:
        """How pieces train from `state` on."""
        choice = self.settings.optimizer
        return replace(choice, learning_rate=choice.learning_rate * 0.5**state.halved)

    def _optimizer(self, model: nn.Module, moments: Moments, state: WalkState) -> Optimizer:
        """The optimiser of a network, with what it remembers."""
        optimizer = make_optimizer(model, self._choice(state), capture=self.settings.speed.capture)
        restore_moments(model, optimizer, moments)
        return optimizer

    def _train(self, model: nn.Module, optimizer: Any, state: WalkState, hooks: Mapping[str, Any]) -> float:
        sizes = self.schedule.sizes
        done, steps = sum(sizes[: state.index]), sizes[state.index]
        batches = Batches(self.trail.data, self.settings.seed, f"path {state.index}", device_of(model)).take(steps)
        return train_steps(
            model,
            optimizer,
            batches,
            self.trail.task,
            Stretch(state.phase, done, sum(sizes)),
            speed=self.settings.speed,
            progress=self.progress,
            **hooks,
        )

    def _removal(self, live: Shrunk, piece: Piece, state: WalkState) -> Removal:
        """What is cut after the piece, in the live network's numbers."""
        is_last = state.index + 1 == len(self.schedule.sizes)
        choose = cut_to_target if is_last else cut_zeros
        blocks, channels = piece.settled()
        return choose(
            live.structure, piece.penalty, blocks, channels, self.schedule.target_cost, self.settings.rounding
        )

    def _trained(self, pieces: int) -> float:
        """The epochs of all training up to the end of so many pieces."""
        steps = sum(self.schedule.sizes[:pieces])
        return self.settings.epochs_before + steps / self.trail.data.num_batches("train")

    def _point(self, phase: str, now: WalkState, cut: Shrunk, loss: float, evaluation: Evaluation) -> PathPoint:
        structure = cut.structure
        return PathPoint(
            phase=phase,
            index=now.index - 1,
            strength=now.control.strength,
            epochs=self._trained(now.index),
            macs=predicted_macs(structure),
            parameters=predicted_parameters(structure),
            blocks_left=len(structure.outer_blocks),
            channels_left=num_channels(structure, streams=self.settings.streams),
            train_loss=loss,
            score=evaluation.score,
            removed_blocks=now.snapshot.removal.blocks,
            removed_channels=now.snapshot.removal.channels,
            repaired=cut.repaired,
        )

    def _decide(self, now: WalkState, structure: Structure, evaluation: Evaluation) -> WalkState:
        """The state after the piece's point: the next piece, the next phase, or done."""
        if now.index == len(self.schedule.sizes) or predicted_cost(structure) <= self.schedule.target_cost:
            return replace(now, phase="done", candidates=())
        if now.phase == "width":
            return now
        candidate = Candidate(len(structure.outer_blocks), evaluation.per_example, now.control.strength, now.snapshot)
        candidates = (*now.candidates, candidate)
        choice = self._depth_choice(candidates)
        has_failed = candidate.blocks_left < candidates[choice].blocks_left
        if now.index < self.schedule.depth_pieces and structure.outer_blocks and not has_failed:
            return replace(now, candidates=candidates)
        chosen = candidates[choice]
        return self._start_of_width(
            now.index, chosen.snapshot, strength=chosen.depth_strength, error=now.error, halved=now.halved
        )

    def _depth_choice(self, candidates: tuple[Candidate, ...]) -> int:
        """Index of the candidate to go on from; 0 is the dense network."""
        if self.settings.depth_rule == "share":
            return len(candidates) - 1
        depths, values = [c.blocks_left for c in candidates], [c.per_example for c in candidates]
        return one_standard_error_choice(depths, values, higher_is_better=self.trail.task.higher_is_better)

    def _start_of_width(
        self, index: int, snapshot: Snapshot, *, strength: float = 0.0, error: float = 0.0, halved: int = 0
    ) -> WalkState:
        snapshot, own_error = self.trail.without_what_is_in_the_way(snapshot, self.schedule.target_cost)
        removal = snapshot.removal
        return WalkState(
            phase="width",
            index=index,
            first=index,
            start_cost=predicted_cost(self.trail.structure, removal.channels, removal.blocks),
            snapshot=snapshot,
            control=StrengthControl(),
            depth_strength=strength,
            error=max(error, own_error),
            halved=halved,
        )
