"""Channels of a plain network in the order in which its convolutions come closest to the identity."""

from math import prod

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from amsc.borrowing import named_tensors
from amsc.structure.group_changes import group_with
from amsc.structure.structure import ChannelGroup, Structure

__all__ = ["match_channels"]


@torch.no_grad()
def match_channels(model: nn.Module, structure: Structure) -> dict[str, float]:
    """Reorder the channels that plain convolutions make, in place, so that each looks most like what it reads.

    A trained plain convolution has no reason to make its k-th channel from the k-th of its input. Of all orders of its
    filters this takes the one with the largest sum of the taps that the identity has (centre of the kernel, from
    channel k to channel k), each filter counted in its own norm; whatever reads the channels follows. The function
    stays what it was.

    Args:
        structure: of `model`; its blocks of the kind "plain" that make an exact group are matched, in order.

    Returns:
        For each convolution the mean of those taps (1: the identity, up to the filters' norms).
    """
    tensors = named_tensors(model)
    found = {}
    for block in structure.blocks:
        made = group_with(structure.channels, f"{block.name}.weight", 0) if block.kind.is_dirac else None
        if made is None or not made.exact:  # under GroupNorm, say, another order is another function
            continue
        taps = _taps(tensors[f"{block.name}.weight"])
        place = next(m.indices for m in made.members if (m.parameter, m.axis) == (f"{block.name}.weight", 0))
        inputs, filters = linear_sum_assignment(taps.T.cpu().numpy(), maximize=True)
        found[block.name] = float(taps[filters, inputs].mean())
        channel_at = {own[0]: channel for channel, own in enumerate(place)}
        _reorder(tensors, made, [channel_at[filters[position]] for position in (own[0] for own in place)])
    return found


def _taps(kernel: Tensor) -> Tensor:
    """The centre of each filter in its norm. Shape: (filter, input channel)."""
    norms = torch.linalg.vector_norm(kernel.flatten(1), dim=1).clamp(min=1e-12)
    taps: Tensor = kernel.flatten(2)[..., prod(kernel.shape[2:]) // 2] / norms[:, None]
    return taps


def _reorder(tensors: dict[str, Tensor], group: ChannelGroup, order: list[int]) -> None:
    """Put channel `order[k]` of the group in the place of channel k."""
    for member in group.members:
        tensor = tensors[member.parameter]
        new = [position for own in member.indices for position in own]
        old = [position for channel in order for position in member.indices[channel]]
        chosen = tensor.index_select(member.axis, torch.tensor(old, device=tensor.device))
        tensor.index_copy_(member.axis, torch.tensor(new, device=tensor.device), chosen)
