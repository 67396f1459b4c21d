"""One piece of the path: train while the penalty is steered to a plan of the cost, settle, and see what stays zero."""

from dataclasses import dataclass
from itertools import compress

import torch
from torch import Tensor, nn

from amsc.penalty import Penalty, empty_
from amsc.structure.costing import predicted_cost, predicted_macs
from amsc.structure.cutting import after_removal
from amsc.structure.rounding import Rounding
from amsc.structure.structure import Structure
from amsc.training.path.look import Look, look_at
from amsc.training.path.norm_log import NormLog
from amsc.training.path.silence import Silence
from amsc.training.path.strength import CostPlan, StrengthControl, forecast_strength
from amsc.training.removal.bunches import ANY_NUMBER, sparing_last
from amsc.training.removal.removed import Removal, channel_map
from amsc.training.steps.loop import set_learning_rate
from amsc.training.steps.proximal import ProximalStep

__all__ = ["Piece", "Position", "settling_steps", "zero_removal"]

SETTLING_RATE = 0.1
"""Factor on the learning rate in the settling part: noise no longer moves groups in and out of zero."""
SETTLED_SHARE = 0.9
"""Share of the settling steps in which a group must be exactly zero to be cut."""
LOOKAHEAD = 0.25
"""How far ahead the strength is forecast, as a share of the phase."""
LOOKS = 60
"""Looks at the network per phase, unless that is more often than every step or less often than every tenth. In each the
processor waits for the device once: at most 120 times in a phase of up to 600 steps, every tenth step of a longer one.
"""


def settling_steps(steps: int) -> int:
    """The last quarter of a piece, at least one step."""
    return min(steps, max(1, steps // 4))


@dataclass(frozen=True)
class Position:
    """Where a piece of `steps` steps lies on `plan`: after `first` of the plan's steps (settling not counted)."""

    plan: CostPlan
    first: int
    steps: int

    @property
    def active(self) -> int:
        """Steps before the settling part."""
        return self.steps - settling_steps(self.steps)


class Piece:
    """Steers one piece of the "depth" or "width" phase of the `model`: give `before` and `after` to `train_steps`, and
    call `end` when it is done. What is seen to be an empty block says nothing from then on (see `Silence`).

    In the settling part of a depth piece the penalty is off and empty blocks stay so: the others recover, and what is
    judged then is the network without the blocks, not what the penalty has made of it.

    In the width phase the depth strength is held at `held`, but never so high that it would empty another block in the
    steps that are left, and not while the network is ahead of its plan: the depth has been chosen.

    Unless it `sets_rate`, learning rates belong to somebody else, in the settling part as well.
    """

    def __init__(
        self,
        kind: str,
        model: nn.Module,
        structure: Structure,
        optimizer: ProximalStep,
        position: Position,
        control: StrengthControl,
        *,
        held: float = 0.0,
        rounding: Rounding = ANY_NUMBER,
        sets_rate: bool = True,
    ) -> None:
        self.rounding, self._sets_rate = rounding, sets_rate
        self.kind, self.structure, self.position, self.control, self.held = kind, structure, position, control, held
        self.optimizer, self.penalty = optimizer, optimizer.penalty
        self._first_rate = float(optimizer.param_groups[0]["lr"])
        self._every = max(1, min(10, position.plan.steps // LOOKS))
        self._zeros, self._silence = _ZeroCount(self.penalty), Silence(model)
        self.norms = NormLog(self.penalty, position.plan.steps)
        self.cost, self.macs = predicted_cost(structure), predicted_macs(structure)
        self._seen: Removal | None = None
        self._latched: Tensor | None = None  # blocks that stay empty until the end of the piece, on their device
        self._set_strengths(0.0)

    def before(self, step: int) -> None:
        """To be called before step `step` (0, 1, ...) of the piece."""
        settling = step >= self.position.active
        if self._sets_rate:
            set_learning_rate(self.optimizer, self._first_rate * (SETTLING_RATE if settling else 1.0))
        if not self.penalty.parameters():
            return  # all that could go is gone
        if not settling and step % self._every == 0:
            self._steer(self.position.first + step)
        elif step == self.position.active and self.kind == "depth":
            self._count(self._look())
            self.optimizer.depth_strength = 0.0

    def after(self, step: int) -> None:
        """To be called after it."""
        if self._latched is not None:
            empty_(self.penalty, self._latched)
        if step >= self.position.active:
            self._zeros.look()

    def end(self) -> None:
        """To be called after the last step: empty blocks that are not cut have their frozen scales and shifts again."""
        self._silence.end()

    def watch(self) -> dict[str, float]:
        """Blocks, channels (as `num_channels` counts them) and MACs left without what is zero, as of the last look."""
        zero = self._seen or Removal()
        left = after_removal(self.structure, {}, zero.blocks)
        groups = (group for group in left.channels if group.removable and group.kind != "stream")
        channels = sum(group.size - len(zero.channels.get(group.name, ())) for group in groups)
        return {"blocks": len(left.outer_blocks), "channels": channels, "macs": self.macs}

    def settled(self) -> tuple[Tensor, Tensor]:
        """Which blocks and penalised channels stayed zero in the settling part. Shapes: block, channel (bool)."""
        return self._zeros.settled()

    def _steer(self, step: int) -> None:
        """Look at the cost without what is zero now, and set the strengths for the coming steps."""
        plan, look = self.position.plan, self._look()
        self._count(look)
        left = max(self._every, plan.steps - step)
        ahead = min(left, max(self._every, round(LOOKAHEAD * plan.steps)))
        needed = self.cost - plan.at(step + ahead)
        times = look.block_times if self.kind == "depth" else look.channel_times
        costs = (self.penalty.block_costs if self.kind == "depth" else self.penalty.leaf_costs).to(times)
        if self.kind == "depth" and not self._is_worth_a_block(costs[torch.isfinite(times)]):
            needed = 0.0
        forecast = forecast_strength(times, costs, needed, ahead)
        self.control = self.control.next(forecast, cost=self.cost, planned=plan.at(step))
        self.norms.add(step - self.position.first, self.control.strength, look)
        self._set_strengths(self._held_strength(look, left, plan.at(step)))

    def _is_worth_a_block(self, costs: Tensor) -> bool:
        """Whether the goal is nearer without another block than with it."""
        return costs.numel() > 0 and self.cost - self.position.plan.goal > 0.5 * float(costs.min())

    def _held_strength(self, look: Look, steps: int, planned: float) -> float:
        if self.held == 0 or self.cost <= planned or not self.penalty.blocks:
            return 0.0
        return float(min(self.held, 0.5 * float(look.block_times.min()) / steps))

    def _look(self) -> Look:
        """Times are in strength times steps at the full learning rate; at that of now, if it is somebody else's."""
        rate = self._first_rate if self._sets_rate else self.optimizer.rate()
        return look_at(self.penalty, rate * self.optimizer.unit_step())

    def _set_strengths(self, held: float) -> None:
        is_depth = self.kind == "depth"
        self.optimizer.depth_strength = self.control.strength if is_depth else held
        self.optimizer.width_strength = 0.0 if is_depth else self.control.strength

    def _count(self, look: Look) -> None:
        zero = zero_removal(self.structure, self.penalty, look.zero_blocks, look.zero_channels, self.rounding)
        if zero != self._seen:
            self._seen, self.cost = zero, predicted_cost(self.structure, zero.channels, zero.blocks)
            self.macs = predicted_macs(self.structure, zero.channels, zero.blocks)
            # Behind a ReLU nothing in a zero block has a gradient but its last shift, which would come back alone as
            # soon as the strength falls: a block without a function but with all its cost.
            self._latched = self.penalty.zero_blocks() if zero.blocks else None
            self._silence.add(zero.blocks)


def zero_removal(
    structure: Structure, penalty: Penalty, blocks: Tensor, channels: Tensor, rounding: Rounding = ANY_NUMBER
) -> Removal:
    """The masks as a removal that leaves every group a number of channels that `rounding` allows, at least one.
    Shapes: block, channel (bool)."""
    gone = tuple(compress(penalty.blocks, blocks.tolist()))
    left = after_removal(structure, {}, gone) if gone else structure
    zero = compress(penalty.channels, channels.tolist())
    return Removal(gone, channel_map(sparing_last(left, zero, rounding)))


class _ZeroCount:
    """How often each group was seen to be exactly zero."""

    def __init__(self, penalty: Penalty) -> None:
        self._penalty = penalty
        self._blocks: Tensor | int = 0
        self._channels: Tensor | int = 0
        self._looks = 0

    def look(self) -> None:
        """Counts where the parameters are: nothing waits."""
        self._blocks = self._penalty.zero_blocks() + self._blocks
        self._channels = self._penalty.zero_channels() + self._channels
        self._looks += 1

    def settled(self) -> tuple[Tensor, Tensor]:
        if isinstance(self._blocks, int) or isinstance(self._channels, int):  # nobody has looked
            return self._penalty.zero_blocks(), self._penalty.zero_channels()
        needed = SETTLED_SHARE * self._looks
        return self._blocks >= needed, self._channels >= needed
