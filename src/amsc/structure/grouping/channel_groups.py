"""From the ledger of a traced run to channel groups: connected labels, what they own, and what stays."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from amsc.structure.grouping.causes import all_of, ties_of_boxes, whole_axes
from amsc.structure.grouping.positions import Axis, Ownership, UnitRows
from amsc.structure.grouping.rectangles import Unit, closed_units
from amsc.structure.labels.ledger import Ledger, Mark, Read
from amsc.structure.structure import PRODUCERS, ChannelGroup, Member, Pin

__all__ = ["channel_groups"]


class _Nature(NamedTuple):
    """What units of one group have in common."""

    reason: str
    is_summed: bool
    is_head: bool
    is_beside_heads: bool
    folds: tuple[str, ...]


def channel_groups(ledger: Ledger, ownership: Ownership) -> tuple[tuple[ChannelGroup, ...], tuple[Pin, ...]]:
    """Channel groups in the order of the network's parameters, and what stays with the reason.

    A unit is a connected component of labels, or several that can only go together; units that own positions on the
    same axes form a group.
    """
    component, axes = ownership.component, ownership.axes
    reasons = _first_reasons(component, ledger.pins)
    for one, reason in whole_axes(ledger, component, axes).items():
        reasons.setdefault(one, reason)
    stays = _mask(ownership.num_components, [0, *reasons])
    single, several = _reads(ledger)
    units, boxed = closed_units(component, list(ledger.boxes.values()), several, stays)
    inexact, folds = _inexact_components(component, single)
    units = [
        unit if unit.inexact else Unit(unit.components, _first(inexact, unit.components), unit.cluster)
        for unit in units
    ]
    free = np.flatnonzero(~stays & ~boxed & (ownership.counts > 0)).tolist()
    units += [Unit((one,), inexact.get(one, "")) for one in free]
    rows = ownership.rows([unit.components for unit in units])
    possible = _possible(ledger, ownership, units, rows, reasons)
    units = [unit for unit, is_possible in zip(units, possible.tolist(), strict=True) if is_possible]
    groups = _grouped(axes, rows.only(possible), _natures(ledger, ownership, units, folds))
    return groups, _pins(axes, _final_reasons(ledger, ownership, units, reasons), ledger.sources)


def _first_reasons(component: np.ndarray, marks: list[Mark]) -> dict[int, str]:
    reasons: dict[int, str] = {}
    for mark in marks:
        for one in np.unique(component[mark.labels.numpy()]).tolist():
            reasons.setdefault(one, mark.reason)
    return reasons


def _named(component: np.ndarray, marks: list[Mark]) -> np.ndarray:
    return component[np.concatenate([mark.labels.numpy() for mark in marks])] if marks else np.zeros(0, dtype=int)


def _mask(size: int, members: Iterable[int]) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    mask[np.fromiter(members, dtype=int)] = True
    return mask


def _reads(ledger: Ledger) -> tuple[list[Read], list[Read]]:
    """Reads of vectors (all of one go only with the axis itself), and reads of parts of boxes."""
    single = [read for read in ledger.reads if len(read.axes) == read.labels.ndim]
    return single, [read for read in ledger.reads if len(read.axes) < read.labels.ndim]


def _inexact_components(component: np.ndarray, reads: list[Read]) -> tuple[dict[int, str], dict[int, dict[str, None]]]:
    """Why components are not exact, and the layers that take constants of components into their biases."""
    reasons: dict[int, str] = {}
    folds: dict[int, dict[str, None]] = defaultdict(dict)
    for read in reads:
        labels: Tensor = read.labels[read.labels < 0] if read.takes_zeros else read.labels
        for one in np.unique(component[labels.abs().numpy().ravel()]).tolist():
            if read.folds:
                folds[one][read.folds] = None
            else:
                reasons.setdefault(one, read.reason)
    return reasons, folds


def _first(reasons: Mapping[int, str], components: Iterable[int]) -> str:
    return next((reasons[one] for one in components if one in reasons), "")


def _folds_of(unit: Unit, folds: Mapping[int, Iterable[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for one in unit.components for name in folds.get(one, ())))


def _natures(
    ledger: Ledger, ownership: Ownership, units: Sequence[Unit], folds: Mapping[int, Iterable[str]]
) -> list[_Nature]:
    summed = set(_named(ownership.component, ledger.sums).tolist())
    heads = set(_named(ownership.component, ledger.heads).tolist())
    is_head = [not heads.isdisjoint(unit.components) for unit in units]
    beside = {unit.cluster for unit, head in zip(units, is_head, strict=True) if head} - {-1}
    return [
        _Nature(
            unit.inexact,
            not summed.isdisjoint(unit.components),
            head,
            unit.cluster in beside,
            () if unit.inexact or not folds else _folds_of(unit, folds),
        )
        for unit, head in zip(units, is_head, strict=True)
    ]


def _possible(
    ledger: Ledger, ownership: Ownership, units: Sequence[Unit], rows: UnitRows, reasons: dict[int, str]
) -> np.ndarray:
    """Mask of the units that the network produces, and without which something of every axis is left."""
    axes, component = ownership.axes, ownership.component
    sizes = np.array([len(axis.components) for axis in axes], dtype=int)
    produces = np.array([axis.role in PRODUCERS for axis in axes], dtype=bool)
    possible = np.zeros(len(units), dtype=bool)
    possible[rows.run_unit[produces[rows.run_entry]]] = True
    for number in np.flatnonzero(~possible).tolist():
        for one in units[number].components:
            reasons.setdefault(one, "no parameter makes it, and only what a layer makes can go")
    whole = np.flatnonzero(rows.run_count == sizes[rows.run_entry]).tolist()
    ties = ties_of_boxes(component, ledger.boxes.values()) if whole else {}
    for run in whole:
        axis, number = axes[rows.run_entry[run]], rows.run_unit[run]
        possible[number] = False
        for one in units[number].components:
            reasons.setdefault(one, all_of(ledger, axis, ties.get(one, "")))
    return possible


def _grouped(axes: Sequence[Axis], rows: UnitRows, natures: Sequence[_Nature]) -> tuple[ChannelGroup, ...]:
    """Units with the same axes, the same number of positions on each, and the same nature, as one group."""
    families: dict[tuple[int, _Nature], list[int]] = defaultdict(list)
    for number, key in enumerate(zip(rows.signatures().tolist(), natures, strict=True)):
        families[key].append(number)
    used: dict[str, int] = defaultdict(int)
    shared: dict[bytes, tuple[tuple[int, ...], ...]] = {}
    found = []
    for (_, nature), numbers in families.items():
        entries, positions = rows.of_alike(numbers)
        positions = positions[np.argsort(positions[:, 0], kind="stable")]
        # By the first axis, the larger units (heads before their dimensions) first.
        found.append(((int(entries[0]), len(numbers), int(positions[0, 0])), nature, entries, positions))
    found.sort(key=lambda family: family[0])
    return tuple(_group(axes, entries, positions, nature, used, shared) for _, nature, entries, positions in found)


def _group(
    axes: Sequence[Axis],
    entries: np.ndarray,
    positions: np.ndarray,
    nature: _Nature,
    used: dict[str, int],
    shared: dict[bytes, tuple[tuple[int, ...], ...]],
) -> ChannelGroup:
    """The group of the units with `positions` (unit x position) on the axes `entries` (one for each position)."""
    members = []
    distinct, starts, counts = np.unique(entries, return_index=True, return_counts=True)
    for entry, start, count in zip(distinct.tolist(), starts.tolist(), counts.tolist(), strict=True):
        own = np.ascontiguousarray(positions[:, start : start + count])
        key = bytes(str(own.shape), "ascii") + own.tobytes()
        indices = shared[key] if key in shared else shared.setdefault(key, tuple(map(tuple, own.tolist())))
        members.append(Member(axes[entry].parameter, axes[entry].axis, indices, axes[entry].role))
    owned = [axes[entry] for entry in distinct.tolist()]
    name = _name(owned)
    used[name] += 1
    unique = name if used[name] == 1 else f"{name}#{used[name]}"
    return ChannelGroup(
        name=unique,
        kind=_kind(owned, nature),
        size=len(positions),
        removable=not nature.reason,
        members=tuple(members),
        reason=nature.reason,
        folds=nature.folds,
    )


def _kind(axes: Sequence[Axis], nature: _Nature) -> str:
    if nature.is_head or nature.is_beside_heads:
        return "head" if nature.is_head else "head_dim"
    producers = [axis for axis in axes if axis.role == "out" and axis.rank > 1]
    if nature.is_summed and len(producers) > 1:
        return "stream"
    return "filter" if any(axis.is_convolution for axis in axes) else "hidden"


def _name(axes: Sequence[Axis]) -> str:
    """The module of the first weight that produces the channels."""
    producers = [axis for axis in axes if axis.role == "out" and axis.rank > 1] or [
        axis for axis in axes if axis.role in PRODUCERS
    ]
    module, _, tensor = producers[0].parameter.rpartition(".")
    return module if tensor == "weight" and module else producers[0].parameter


def _final_reasons(
    ledger: Ledger, ownership: Ownership, units: Sequence[Unit], reasons: Mapping[int, str]
) -> dict[int, str]:
    """Why each component that is in no unit stays: where nothing else is known, what it is laid out with ties it to
    what stays."""
    removable = {one for unit in units for one in unit.components}
    left = [one for one in np.flatnonzero(ownership.counts).tolist() if one not in removable]
    tied = ties_of_boxes(ownership.component, ledger.boxes.values()) if not reasons.keys() >= set(left) else {}
    return {one: reasons.get(one) or _tied(ledger, tied[one]) for one in left}


def _tied(ledger: Ledger, operator: str) -> str:
    reason = f"{operator} needs whole slices, which hold what stays"
    ledger.sources.setdefault(reason, ledger.sources.get(operator, ""))
    return reason


def _pins(axes: Sequence[Axis], reasons: Mapping[int, str], sources: Mapping[str, str]) -> tuple[Pin, ...]:
    pins = []
    for axis in axes:
        count: dict[str, int] = defaultdict(int)
        for one in axis.components.tolist():
            if one in reasons:
                count[reasons[one]] += 1
        pins += [
            Pin(axis.parameter, axis.axis, number, reason, sources.get(reason, "")) for reason, number in count.items()
        ]
    return tuple(pins)
