"""What steering looks at: what is zero and how soon the rest would be, in one transfer from the device."""

from dataclasses import dataclass

import torch
from torch import Tensor

from amsc.penalty import Penalty, emptying_times, group_norms

__all__ = ["Look", "look_at"]


@dataclass(frozen=True)
class Look:
    """Which blocks and penalised channels are exactly zero, their `emptying_times`, and their norms; all on the CPU.

    Shapes: block, channel (bool), block, channel, block, channel."""

    zero_blocks: Tensor
    zero_channels: Tensor
    block_times: Tensor
    channel_times: Tensor
    block_norms: Tensor
    channel_norms: Tensor


def look_at(penalty: Penalty, step_size: float | Tensor) -> Look:
    """The network as it is, with the times for steps of this size. The processor waits for the device once."""
    channel_times, block_times = emptying_times(penalty, step_size)
    channel_norms, block_norms = group_norms(penalty)
    zeros = (penalty.zero_blocks(), penalty.zero_channels())
    parts = (*zeros, block_times, channel_times, block_norms, channel_norms)
    together = torch.cat([part.to(channel_times.dtype) for part in parts]).cpu()
    blocks, channels, *rest = together.split([len(part) for part in parts])
    return Look(blocks > 0, channels > 0, *rest)
