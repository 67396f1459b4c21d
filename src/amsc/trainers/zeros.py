"""A strength that has a scale, and what is zero as a plan: for a training loop that is written by hand."""

import torch
from torch import Tensor

from amsc.errors import SettingsError, TrainingError
from amsc.penalty import Penalty, emptying_times
from amsc.structure import Rounding
from amsc.surgery import CutPlan, plan_cut
from amsc.training import ProximalStep
from amsc.training.path.piece import zero_removal
from amsc.training.path.strength import forecast_strength

__all__ = ["strength_for", "zero_plan"]

ANY_NUMBER = Rounding()


def strength_for(optimizer: ProximalStep, share: float, steps: int, *, of: str = "channels") -> float:
    """The strength that would empty this share of the channels (or blocks) within so many steps, if the loss did not
    resist; in truth it resists, and fewer are empty. For blocks it is what would if they went on as fast as they start;
    they grow slower.

    At the learning rate and the weights of now; what is zero already counts. With Adam the optimiser must have taken a
    step, since its step sizes depend on gradients.

        optimizer.width_strength = strength_for(optimizer, share=0.5, steps=1000)
        optimizer.depth_strength = strength_for(optimizer, share=0.2, steps=1000, of="blocks")

    Raises:
        SettingsError: `share` is not above 0 and at most 1, `steps` is not positive, or `of` is something else.
        TrainingError: it is Adam before its first step.
    """
    if of not in ("channels", "blocks") or not 0 < share <= 1 or steps < 1:
        raise SettingsError(
            'expected a share above 0 and at most 1 of="channels" or of="blocks", and at least one step; got '
            f"share={share}, of={of!r}, steps={steps}"
        )
    step_size = optimizer.step_size() if optimizer.penalty.parameters() else 1.0
    if isinstance(step_size, Tensor) and not bool((step_size > 0).any()):
        raise TrainingError("Adam has no step sizes before its first step; ask for a strength after it")
    channel_times, block_times = emptying_times(optimizer.penalty, step_size)
    times = channel_times if of == "channels" else block_times
    needed = share * len(times) - int((times == 0).sum())
    return forecast_strength(times, torch.ones_like(times), needed, float(steps))


def zero_plan(penalty: Penalty, *, rounding: Rounding = ANY_NUMBER) -> CutPlan:
    """The plan that removes all blocks and channels that are exactly zero now; every group keeps a channel.

    `rounding` says which numbers of channels may be left: zero ones stay until one of them is reached.

        small = amsc.cut(model, zero_plan(penalty))

    Raises:
        CutError: see `plan_cut`.
    """
    gone = zero_removal(penalty.structure, penalty, penalty.zero_blocks(), penalty.zero_channels(), rounding)
    return plan_cut(penalty.structure, channels=gone.channels, blocks=gone.blocks)
