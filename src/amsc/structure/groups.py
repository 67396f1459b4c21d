"""From the ledger of a traced run to channel groups: connected labels, what they own, and what stays."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from amsc.structure.labels import Ledger, Mark
from amsc.structure.tracer import Parameter
from amsc.structure.values import ChannelGroup, Member, Pin

__all__ = ["channel_groups"]

PRODUCERS = ("out", "affine", "element")


@dataclass(frozen=True)
class _Axis:
    """One axis of one parameter: component of every position (0: belongs to nothing removable)."""

    parameter: str
    axis: int
    role: str
    rank: int
    components: np.ndarray


@dataclass(frozen=True)
class _Family:
    """What units of one group have in common: (axis entry, number of positions) pairs, exactness, being summed."""

    widths: tuple[tuple[int, int], ...]
    taint: str
    is_summed: bool


def channel_groups(ledger: Ledger, parameters: Iterable[Parameter]) -> tuple[tuple[ChannelGroup, ...], tuple[Pin, ...]]:
    """Channel groups in the order of the network's parameters, and what stays with the reason.

    A unit is a connected component of labels; units that own positions on the same axes form a group.
    """
    component = ledger.components()
    component[0] = -1
    component += 1  # 0 is now "belongs to nothing removable"
    reasons = _first_reasons(component, ledger.pins)
    axes = []
    for parameter in parameters:
        axes += _axes_of(parameter, component, reasons)
    _pin_whole_axes(axes, reasons)
    owned = _owned_positions(axes)
    for unit, entries in owned.items():
        if not any(axes[entry].role in PRODUCERS for entry in entries):
            reasons.setdefault(unit, "nothing in the network produces it")
    free = {unit: entries for unit, entries in owned.items() if unit not in reasons}
    tainted = _first_reasons(component, ledger.taints)
    summed = set(_first_reasons(component, ledger.sums))
    return _grouped_units(axes, free, tainted, summed), _pins(axes, reasons)


def _first_reasons(component: np.ndarray, marks: list[Mark]) -> dict[int, str]:
    reasons: dict[int, str] = {}
    for mark in marks:
        for unit in np.unique(component[mark.labels.numpy()]).tolist():
            reasons.setdefault(unit, mark.reason)
    return reasons


def _axes_of(parameter: Parameter, component: np.ndarray, reasons: dict[int, str]) -> list[_Axis]:
    """The labelled axes of a parameter; one used element-wise must be owned in whole slices of one axis."""
    rank = parameter.tensor.ndim
    if parameter.elements is None or rank <= 1:
        return [
            _Axis(parameter.name, axis, parameter.roles[axis], rank, component[labels.numpy()])
            for axis, labels in parameter.axes.items()
        ] or _vector_axis(parameter, component)
    units = component[parameter.elements.numpy()]
    if parameter.axes:
        used = np.concatenate([units.ravel(), *(component[labels.numpy()] for labels in parameter.axes.values())])
        return _pinned(used, reasons, f"{parameter.name} is used both by a layer and element-wise")
    for axis in range(rank):
        slices = np.moveaxis(units, axis, 0).reshape(units.shape[axis], -1)
        if (slices == slices[:, :1]).all():
            return [_Axis(parameter.name, axis, "element", rank, slices[:, 0])]
    if len(np.unique(units)) == units.size:
        return []  # nothing was aligned with it
    return _pinned(units, reasons, f"its elements are not whole slices of {parameter.name}")


def _vector_axis(parameter: Parameter, component: np.ndarray) -> list[_Axis]:
    if parameter.elements is None or parameter.tensor.ndim == 0:
        return []
    return [_Axis(parameter.name, 0, "element", 1, component[parameter.elements.numpy()])]


def _pinned(units: np.ndarray, reasons: dict[int, str], reason: str) -> list[_Axis]:
    for unit in np.unique(units[units != 0]).tolist():
        reasons.setdefault(unit, reason)
    return []


def _pin_whole_axes(axes: list[_Axis], reasons: dict[int, str]) -> None:
    """A unit that is a whole axis by itself cannot go: the layer would be empty."""
    for axis in axes:
        if axis.components[0] != 0 and (axis.components == axis.components[0]).all():
            reasons.setdefault(int(axis.components[0]), f"it is all of {axis.parameter}, axis {axis.axis}")


def _owned_positions(axes: list[_Axis]) -> dict[int, dict[int, list[int]]]:
    """unit -> index into `axes` -> positions."""
    owned: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for entry, axis in enumerate(axes):
        for position, unit in enumerate(axis.components.tolist()):
            if unit:
                owned[unit][entry].append(position)
    return owned


def _grouped_units(
    axes: list[_Axis],
    units: Mapping[int, Mapping[int, list[int]]],
    tainted: Mapping[int, str],
    summed: set[int],
) -> tuple[ChannelGroup, ...]:
    """Units with the same axes, the same number of positions on each, and the same nature, as one group."""
    families: dict[_Family, list[Mapping[int, list[int]]]] = defaultdict(list)
    for unit, owned in units.items():
        widths = tuple((entry, len(positions)) for entry, positions in sorted(owned.items()))
        families[_Family(widths, tainted.get(unit, ""), unit in summed)].append(owned)
    groups: list[ChannelGroup] = []
    taken: dict[str, int] = defaultdict(int)
    for members in families.values():
        members.sort(key=_position)
    for family, members in sorted(families.items(), key=lambda item: _position(item[1][0])):
        entries = [entry for entry, _ in family.widths]
        owners = tuple(
            Member(axes[e].parameter, axes[e].axis, tuple(tuple(unit[e]) for unit in members), axes[e].role)
            for e in entries
        )
        name = _name([axes[entry] for entry in entries])
        taken[name] += 1
        unique = name if taken[name] == 1 else f"{name}#{taken[name]}"
        sources = sum(axes[entry].role == "out" and axes[entry].rank > 1 for entry in entries)
        kind = "stream" if family.is_summed and sources > 1 else "inner"
        groups.append(ChannelGroup(unique, kind, len(members), not family.taint, owners, family.taint))
    return tuple(groups)


def _position(entries: Mapping[int, list[int]]) -> tuple[int, int]:
    first = min(entries)
    return first, entries[first][0]


def _name(axes: list[_Axis]) -> str:
    """The module of the first weight that produces the channels."""
    producers = [axis for axis in axes if axis.role == "out" and axis.rank > 1] or [
        axis for axis in axes if axis.role in PRODUCERS
    ]
    module, _, tensor = producers[0].parameter.rpartition(".")
    return module if tensor == "weight" and module else producers[0].parameter


def _pins(axes: list[_Axis], reasons: Mapping[int, str]) -> tuple[Pin, ...]:
    pins = []
    for axis in axes:
        count: dict[str, int] = defaultdict(int)
        for unit in axis.components.tolist():
            if unit in reasons:
                count[reasons[unit]] += 1
        pins += [Pin(axis.parameter, axis.axis, number, reason) for reason, number in count.items()]
    return tuple(pins)
