"""Removals to compare with: which inner channels go, at the same cost, chosen at random or by the filters' L1 norm."""

import random
from collections.abc import Callable

from torch import nn

from amsc.borrowing import named_tensors
from amsc.structure import ChannelGroup, Structure
from amsc.structure.costing import predicted_macs

__all__ = ["l1_removal", "random_removal", "uniform_removal"]

Order = Callable[[ChannelGroup], list[int]]


def random_removal(structure: Structure, target_macs: int, seed: int) -> dict[str, list[int]]:
    """The same share of every layer's inner channels, drawn at random."""
    chooser = random.Random(seed)
    return uniform_removal(structure, target_macs, lambda group: chooser.sample(range(group.size), group.size))


def l1_removal(structure: Structure, target_macs: int, model: nn.Module) -> dict[str, list[int]]:
    """The same share of every layer's inner channels, smallest L1 norm of the filter first (Li et al. 2017)."""
    tensors = named_tensors(model)

    def by_norm(group: ChannelGroup) -> list[int]:
        (filters,) = (m for m in group.members if m.role == "out" and tensors[m.parameter].ndim > 1)
        weight = tensors[filters.parameter].detach().movedim(filters.axis, 0)
        norms = [float(weight[list(owned)].abs().sum()) for owned in filters.indices]
        return sorted(range(group.size), key=norms.__getitem__)

    return uniform_removal(structure, target_macs, by_norm)


def uniform_removal(structure: Structure, target_macs: int, order: Order) -> dict[str, list[int]]:
    """Channels by turns, at the same pace in every inner group, until the MACs are at the target or just below."""
    groups = [group for group in structure.channels if group.exact and group.kind == "filter"]
    ranked = sorted(
        ((place + 0.5) / group.size, group.name, channel)
        for group in groups
        for place, channel in enumerate(order(group)[:-1])
    )
    low, high = 0, len(ranked)
    while low < high:  # fewest channels that reach the target: MACs fall with every one
        middle = (low + high) // 2
        is_above = predicted_macs(structure, _as_map(ranked[:middle])) > target_macs
        low, high = (middle + 1, high) if is_above else (low, middle)
    return _as_map(ranked[:low])


def _as_map(chosen: list[tuple[float, str, int]]) -> dict[str, list[int]]:
    channels: dict[str, list[int]] = {}
    for _, name, channel in chosen:
        channels.setdefault(name, []).append(channel)
    return channels
