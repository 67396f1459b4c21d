"""A network becomes smaller while somebody else's loop trains it: the core of all callbacks."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from amsc.data import moved
from amsc.errors import AmscWarning, ModelError, TargetError, TrainingError
from amsc.jobs.preparation import removable
from amsc.limits.budget import find_budget
from amsc.limits.target import Target, parse_target
from amsc.structure import Structure, without_frozen
from amsc.structure.costing import predicted_cost, predicted_macs, predicted_parameters
from amsc.structure.cutting import after_removal
from amsc.surgery import plan_cut, plan_of
from amsc.trainers.course import LoopSettings, course_of
from amsc.trainers.in_place import cut_in_place
from amsc.trainers.loop_piece import LoopPiece
from amsc.trainers.networks import averaged_network, bare_network, bare_optimizer, check_alone, undisturbed
from amsc.trainers.state import LoopState
from amsc.training import Removal, device_of, num_channels
from amsc.training.path.strength import StrengthControl
from amsc.training.removal.to_cost import cut_to_target, cut_zeros

__all__ = ["Compression", "MadeCut"]


@dataclass(frozen=True)
class MadeCut:
    """A cut that was made: after how many steps of the optimiser, at which strength, and what is left."""

    steps: int
    strength: float
    macs: int
    parameters: int
    blocks: int
    channels: int


class Compression:
    """Brings the network of a training loop down to a target, while the loop trains it.

    It hangs on the optimiser: around each of its steps the penalty is steered, and its proximal map applied, so that
    whole channels and blocks become exactly zero. `update`, called once an iteration, cuts what is zero at the end of
    each piece of the path (see `LoopSettings`), and what the target needs at the end of the last one. The network, its
    modules, the optimiser and its parameter groups stay the same objects (see `cut_in_place`), and schedulers keep
    their place. Learning rates, weight decay and random generators are left alone.

        compression = Compression(model, optimizer, inputs, target=Target(macs=0.5), steps=epochs * len(loader))
        for inputs, labels in batches:
            ...                     # forward, backward, optimizer.step(), scheduler.step()
            compression.update()
        amsc.save(compression.end(), "small")

    Args:
        model: the network; it may be compiled.
        optimizer: torch.optim.SGD, Adam or AdamW over its parameters, or what Accelerate made of one.
        example_inputs: what `amsc.trace` takes.
        target: in macs, params, bytes, latency or memory; or as text, "macs=50%".
        steps: how many steps the optimiser takes in the whole training.
        averages: copies of the network with averaged weights that are to follow (see `cut_in_place`).
        settings: the choices.
        resume: where it stood; the model must be as small as it was then (see `cut_as`).

    Attributes:
        network: the network, without wrappers.
        structure: its structure as it is now.
        steps: steps of the optimiser so far.
        cuts: those that were made.
        is_done: whether the target is met, so that the penalty is gone and nothing more is cut.

    Raises:
        TargetError: the target is none, cannot be reached, or needs a validation split; nothing can be removed.
        ModelError, InputError: the model cannot be traced on the inputs, is wrapped for several devices, or is not as
            small as in the state to go on from.
        TrainingError: the optimiser is of another kind, or lacks parameters; or several processes train together.
        SettingsError: a choice is impossible.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        example_inputs: Any,
        *,
        target: Target | str,
        steps: int,
        averages: Sequence[nn.Module] = (),
        settings: LoopSettings = LoopSettings(),  # noqa: B008 - it is frozen
        resume: LoopState | None = None,
    ) -> None:
        check_alone()
        self.network, self.optimizer = bare_network(model), bare_optimizer(optimizer)
        self.averages, self.settings, self._inputs = tuple(averages), settings, example_inputs
        for average in self.averages:
            averaged_network(average)
        self.cuts: list[MadeCut] = []
        state = self._first_state(_checked(target), steps) if resume is None else resume
        _check_size(self.network, state)
        self.structure, self.course, self.steps, self.is_done = (
            state.structure,
            state.course,
            state.steps,
            state.is_done,
        )
        self._index, self._start_cost = state.piece, state.start_cost
        self._control = StrengthControl(correction=state.correction)
        self._piece = None if self.is_done else self._next_piece()
        self._handles = (
            self.optimizer.register_step_pre_hook(lambda *_: self._before_step()),
            self.optimizer.register_step_post_hook(lambda *_: self._after_step()),
        )

    @property
    def state(self) -> LoopState:
        """Where it stands, for a checkpoint. Going on from it, the piece measures its weights anew."""
        plan, control = plan_of(self.network), self._control if self._piece is None else self._piece.control
        place = self._index, self._start_cost
        return LoopState(self.steps, plan, self.structure, self.course, *place, control.correction, self.is_done)

    def update(self) -> bool:
        """To be called between two iterations of the loop, whether or not the optimiser took a step in the last one.
        Returns whether the network was cut.

        Raises:
            VerificationError, TrainingError: see `cut_in_place`; the network is as it was.
        """
        if self._piece is None or self.steps < sum(self.course.sizes[: self._index + 1]):
            return False
        self._cut(self._piece, is_last=self.course.piece_at(self.steps) == len(self.course.sizes))
        return True

    def end(self) -> nn.Module:
        """The network, at its target. If training ended before the path did, all that the target still needs is cut
        now, with a warning: **that changes the function**, and nothing trains the network afterwards.

        The optimiser is let go of.

        Raises:
            TrainingError: the optimiser has not taken a step.
        """
        if not self.steps:
            raise TrainingError(
                "the optimiser that the compression hangs on has not taken a step; if another one was made after it, "
                "make the compression with that"
            )
        if self._piece is not None:
            warnings.warn(
                f"training ended after {self.steps} steps, and the path to the target takes {sum(self.course.sizes)}: "
                "what the target still needs is cut now and not trained away; train for longer, or say fewer steps",
                AmscWarning,
                stacklevel=2,
            )
            self._cut(self._piece, is_last=True)
        for handle in self._handles:
            handle.remove()
        return self.network

    def watch(self) -> dict[str, float]:
        """What to log: cost as a share of the dense network's, MACs, blocks and channels, without what is zero as of
        the last look; and the strength."""
        seen = {} if self._piece is None else self._piece.watch()
        if not seen:
            left, count = self.structure, num_channels(self.structure)
            seen = {"cost": predicted_cost(left), "strength": 0.0, "blocks": len(left.outer_blocks), "channels": count}
            seen["macs"] = predicted_macs(left)
        return {**seen, "cost": seen["cost"] / self.course.dense_cost}

    def _first_state(self, target: Target, steps: int) -> LoopState:
        """Before the first step, after all has been checked that can be."""
        settings = self.settings.as_settings()
        inputs = moved(self._inputs, device_of(self.network))
        with undisturbed(self.network):
            structure = without_frozen(removable(self.network, inputs, settings), self.network)
            budget = find_budget(self.network, structure, inputs, target, settings)
        course = course_of(self.settings, budget.structure, budget.met, steps)
        plan = plan_of(self.network)
        return LoopState(0, plan, budget.structure, course, 0, course.dense_cost, StrengthControl().correction, False)

    def _next_piece(self) -> LoopPiece:
        index = self._index
        return LoopPiece(
            self.network,
            self.structure,
            self.optimizer,
            self.course.phase(index),
            self.course.position(index, self._start_cost),
            self._control,
            weights=self.settings.weights,
            measured=self.course.measured[index],
            rounding=self.course.rounding,
            first=self.steps - sum(self.course.sizes[:index]),
        )

    def _before_step(self) -> None:
        if self._piece is not None:
            self._piece.before_step()

    def _after_step(self) -> None:
        self.steps += 1
        if self._piece is not None:
            self._piece.after_step()

    def _cut(self, piece: LoopPiece, *, is_last: bool) -> None:
        """The end of a piece: cut what stayed zero (at the last one what the target needs), and go on."""
        self._control = piece.control
        blocks, channels = piece.settled()
        choose = cut_to_target if is_last else cut_zeros
        target = self.course.target_cost
        removal = choose(self.structure, piece.penalty, blocks, channels, target, self.course.rounding)
        piece.end()
        if removal:
            self._remove(removal)
        self.cuts.append(_made(self.steps, piece.control.strength, self.structure))
        if is_last or predicted_cost(self.structure) <= target:
            self.is_done, self._piece = True, None  # the loop trains the network as it is
            return
        was_depth = self.course.phase(self._index) == "depth"
        self._index = self.course.piece_at(self.steps)
        if was_depth and self.course.phase(self._index) == "width":
            self._start_cost = predicted_cost(self.structure)
        self._piece = self._next_piece()

    def _remove(self, removal: Removal) -> None:
        plan = plan_cut(self.structure, channels=removal.channels, blocks=removal.blocks)
        inputs = moved(self._inputs, device_of(self.network))
        cut_in_place(self.network, plan, inputs, optimizers=[self.optimizer], averages=self.averages)
        self.structure = after_removal(self.structure, removal.channels, removal.blocks)


def _check_size(network: nn.Module, state: LoopState) -> None:
    """Refuse to go on with a network that is not as small as it was."""
    if plan_of(network) != state.plan:
        raise ModelError(
            "the network is not as small as it was in the state that the compression is to go on from; call "
            "amsc.trainers.cut_as(model, state) with the dense network, then load its weights"
        )


def _made(steps: int, strength: float, structure: Structure) -> MadeCut:
    macs, parameters = predicted_macs(structure), predicted_parameters(structure)
    return MadeCut(steps, strength, macs, parameters, len(structure.outer_blocks), num_channels(structure))


def _checked(target: Target | str) -> Target:
    target = parse_target(target) if isinstance(target, str) else target
    if not isinstance(target, Target):
        raise TargetError(f"target must be an amsc.Target, such as amsc.Target(macs=0.5); got {target!r}")
    if target.is_free or target.drop is not None:
        raise TargetError(
            f"{target!r} is looked for on a validation split, which somebody else's loop keeps to itself: give a cost, "
            "such as macs=50%, or call amsc.compress"
        )
    return target
