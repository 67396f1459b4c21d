"""What goes from convolutions with groups: whole groups with their inputs, or an equal share of every group."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from amsc.structure.grouping.channel_groups import channel_groups
from amsc.structure.grouping.positions import Ownership
from amsc.structure.labels.ledger import Grouped, Ledger
from amsc.structure.structure import ChannelGroup, Pin
from amsc.structure.tracing.parameters import Parameter

__all__ = ["grouped_channels"]


def grouped_channels(
    ledger: Ledger, parameters: Sequence[Parameter]
) -> tuple[Ownership, tuple[ChannelGroup, ...], tuple[Pin, ...]]:
    """The components of labels with what they own, and the channel groups and pins that they make.

    From a convolution with groups whole groups go. Where none can, as behind a shuffle of the channels, an equal share
    of every group goes.
    """
    shared: set[int] = set()
    while True:
        settled = _settled(ledger, shared)
        ownership = Ownership(settled, parameters)
        channels, pins = channel_groups(settled, ownership)
        made = {member.parameter for group in channels for member in group.members if member.axis == 0}
        stuck = {
            number
            for number, grouped in enumerate(ledger.grouped)
            if number not in shared and _has_shares(grouped) and grouped.weight not in made
        }
        if not stuck:
            return ownership, channels, pins
        shared |= stuck


def _has_shares(grouped: Grouped) -> bool:
    """Whether a group has more than one input or output, so that a part of it can go."""
    return bool(grouped.weight) and max(len(grouped.inputs), grouped.made.shape[1]) > 1


def _settled(ledger: Ledger, shared: Collection[int]) -> Ledger:
    """The ledger with all that its convolutions with groups demand; of those numbered in `shared` equal shares go."""
    if not ledger.grouped:
        return ledger
    settled = replace(
        ledger, edges=list(ledger.edges), ties=list(ledger.ties), pins=list(ledger.pins), sources=dict(ledger.sources)
    )
    for number, grouped in enumerate(ledger.grouped):
        if number in shared:
            _share_inputs(settled, grouped)
        else:
            _keep_groups(settled, grouped)
    _even_out(settled, [ledger.grouped[number] for number in sorted(shared)])
    return settled


def _even_out(ledger: Ledger, shared: Sequence[Grouped]) -> None:
    """Unite outputs until what goes together has as many of every group; what cannot have stays."""
    place, num_even = 0, 0
    component = ledger.components()
    while num_even < len(shared):
        if _share_outputs(ledger, shared[place], component):
            component, num_even = ledger.components(), 0
        place, num_even = (place + 1) % len(shared), num_even + 1


def _keep_groups(ledger: Ledger, grouped: Grouped) -> None:
    """All that a group reads and makes goes together."""
    made, reason = grouped.made, grouped.reason
    read = torch.zeros_like(made[:, :1]) if grouped.read is None else grouped.read
    _pin(ledger, grouped, grouped.inputs, ", of which only whole groups can go")
    ledger.unite(read[:, :1], read, reason)
    ledger.unite(made[:, :1], made, reason)
    ledger.unite(read[:, :1], made[:, :1], reason)


def _share_inputs(ledger: Ledger, grouped: Grouped) -> None:
    """The same input of every group goes, from the axis of the weight that they share."""
    if grouped.read is None:
        _pin(ledger, grouped, grouped.inputs, " that read what stays")
    else:
        ledger.unite(grouped.read, grouped.inputs, grouped.reason)


def _uneven(grouped: Grouped, component: np.ndarray, stays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(outputs of each component in each group, components that have not as many in every one, in order of them)."""
    made = component[grouped.made.abs().numpy()]
    counts = np.zeros((len(stays), len(made)), dtype=int)
    np.add.at(counts, (made, np.arange(len(made))[:, None]), 1)
    uneven = np.flatnonzero((counts.min(1) < counts.max(1)) & ~stays)
    first = np.full(len(stays), made.size)
    np.minimum.at(first, made.ravel(), np.arange(made.size))
    return counts, uneven[np.argsort(first[uneven], kind="stable")]


def _share_outputs(ledger: Ledger, grouped: Grouped, component: np.ndarray) -> bool:
    """Unite outputs of one convolution; whether there was anything to unite."""
    stays = np.zeros(component.max() + 1, dtype=bool)
    stays[component[_pinned(ledger)]] = True
    counts, uneven = _uneven(grouped, component, stays)
    label = np.zeros(len(stays), dtype=int)
    label[component[grouped.made.abs().numpy()]] = grouped.made.abs().numpy()
    for team in _even_teams(counts, uneven.tolist()):
        labels = torch.from_numpy(label[np.array(team)])
        total = counts[team].sum(0)
        if total.min() == total.max():
            ledger.unite(labels[:1], labels, grouped.reason)
        else:
            _pin(ledger, grouped, labels, ", which must stay equally large")
    return bool(len(uneven))


def _pin(ledger: Ledger, grouped: Grouped, labels: Tensor, why: str) -> None:
    reason = f"{grouped.reason}{why}"
    ledger.sources[reason] = ledger.sources.get(grouped.reason, "")
    ledger.pin(labels, reason)


def _pinned(ledger: Ledger) -> Tensor:
    return torch.cat([torch.zeros(1, dtype=torch.int64), *(mark.labels for mark in ledger.pins)])


def _even_teams(counts: np.ndarray, uneven: Sequence[int]) -> Iterable[list[int]]:
    """Components in teams that have as many outputs of every group, each as small as it can be made one by one; the
    last one may have not. Shape of `counts`: component x group."""
    left = list(uneven)
    while left:
        team = [left.pop(0)]
        total = counts[team[0]].copy()
        while left and total.min() < total.max():
            sums = total + counts[left]
            best = int(np.argmin(sums.max(1) * sums.shape[1] - sums.sum(1)))
            total = sums[best]
            team.append(left.pop(best))
        yield team
