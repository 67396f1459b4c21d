"""What can go from tensors that must stay rectangular: whole heads, the same dimensions of every head, halves alike.

Components of labels are nodes; a box is a tensor of them. A set of nodes can go alone if in every box it is a union of
whole slices. From the slices of one box such sets are found by growing them until they fit all other boxes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from amsc.structure.labels.ledger import Box, Read

__all__ = ["Unit", "closed_units"]


class Unit(NamedTuple):
    """Components that go together, why that is not exact ("" if it is), and the number of the cluster of boxes they
    lie in (-1: in none)."""

    components: tuple[int, ...]
    inexact: str
    cluster: int = -1


@dataclass(frozen=True)
class _Array:
    """A box, of nodes; the last node stands for all that stays."""

    nodes: np.ndarray
    headed: bool


@dataclass(frozen=True)
class _Cluster:
    """Boxes and reads that share nodes: `members[node]` is the component behind a node."""

    arrays: tuple[_Array, ...]
    reads: tuple[tuple[np.ndarray, Read], ...]
    members: np.ndarray

    def key(self) -> tuple[object, ...]:
        """The same for clusters that differ only in their components: alike layers."""
        arrays = tuple((array.nodes.shape, array.headed, array.nodes.tobytes()) for array in self.arrays)
        reads = tuple((nodes.shape, nodes.tobytes(), read.axes, read.takes_zeros) for nodes, read in self.reads)
        signs = tuple((read.labels < 0).numpy().tobytes() for _, read in self.reads)
        return arrays, reads, signs, len(self.members)


def closed_units(
    component: np.ndarray, boxes: Sequence[Box], reads: Sequence[Read], stays: np.ndarray
) -> tuple[list[Unit], np.ndarray]:
    """(units that can go alone, mask of the components that lie in a box).

    Args:
        component: component of every label.
        boxes: labels of tensors along several axes.
        reads: the operators that combine elements along some of these axes.
        stays: mask of the components that cannot go. Shape: component.
    """
    arrays = list(_distinct(component, boxes, stays))
    boxed = np.zeros(len(stays), dtype=bool)
    for array in arrays:
        boxed[array.nodes[array.nodes >= 0]] = True
    several = [(np.where(stays[c := component[read.labels.abs().numpy()]], -1, c), read) for read in reads]
    units: list[Unit] = []
    found: dict[tuple[object, ...], list[tuple[np.ndarray, int]]] = {}
    for place, cluster in enumerate(_clusters(arrays, several, len(stays))):
        key = cluster.key()
        if key not in found:
            found[key] = _units(cluster)
        for nodes, number in found[key]:
            reason = cluster.reads[number][1].reason if number >= 0 else ""
            units.append(Unit(tuple(sorted(cluster.members[nodes].tolist())), reason, place))
    return units, boxed


def _distinct(component: np.ndarray, boxes: Sequence[Box], stays: np.ndarray) -> Iterator[_Array]:
    """Every different box of components (-1 for what stays), without the axes along which it does not change."""
    seen = set()
    for box in boxes:
        nodes, headed = component[box.labels.numpy()], box.headed
        nodes = np.where(stays[nodes], -1, nodes)
        for axis in reversed(range(nodes.ndim)):
            is_last = axis == nodes.ndim - 1
            if (nodes == nodes.take([0], axis)).all() and (not headed or is_last or nodes.ndim > 2):
                headed = headed and not is_last
                nodes = nodes.take(0, axis)
        if nodes.ndim < 2 or (nodes < 0).all():
            continue
        key = (nodes.shape, headed, nodes.tobytes())
        if key not in seen:
            seen.add(key)
            yield _Array(nodes, headed)


def _clusters(
    arrays: Sequence[_Array], reads: Sequence[tuple[np.ndarray, Read]], num_components: int
) -> Iterator[_Cluster]:
    """Arrays that share components, with their nodes renumbered in the order in which they are met."""
    edges = [np.stack((np.full(live.size, live[0]), live)) for array in arrays if (live := _live(array.nodes)).size]
    if not edges:
        return
    roots = _connected(np.concatenate(edges, axis=1), num_components)
    by_root: dict[int, tuple[list[_Array], list[tuple[np.ndarray, Read]]]] = {}
    for array in arrays:
        by_root.setdefault(int(roots[_live(array.nodes)[0]]), ([], []))[0].append(array)
    for nodes, read in reads:
        live = _live(nodes)
        if live.size and int(roots[live[0]]) in by_root:
            by_root[int(roots[live[0]])][1].append((nodes, read))
    for own, own_reads in by_root.values():
        met = np.concatenate([_live(array.nodes) for array in own])
        unique, first = np.unique(met, return_index=True)
        members = unique[np.argsort(first)]
        number = np.full(num_components + 1, len(members))  # index -1: what stays
        number[members] = np.arange(len(members))
        yield _Cluster(
            tuple(_Array(number[array.nodes], array.headed) for array in own),
            tuple((number[nodes], read) for nodes, read in own_reads),
            members,
        )


def _live(nodes: np.ndarray) -> np.ndarray:
    return nodes[nodes >= 0]


def _units(cluster: _Cluster) -> list[tuple[np.ndarray, int]]:
    """(nodes, number of the read that makes it inexact or -1) of the smallest sets that can go alone."""
    families: list[np.ndarray] = []
    for array in cluster.arrays:
        for axis in range(array.nodes.ndim):
            slices = _slices(cluster, array, axis)
            if len(slices) and not _are_known(slices, families):
                families.append(_grown(cluster, slices))
    found: dict[bytes, tuple[np.ndarray, int]] = {}
    for unit_of in families:
        inexact = _inexact(cluster, unit_of)
        live = np.flatnonzero(unit_of >= 0)
        order = live[np.argsort(unit_of[live], kind="stable")]
        starts = np.flatnonzero(np.diff(unit_of[order])) + 1
        for nodes in np.split(order, starts) if len(order) else ():
            found.setdefault(nodes.tobytes(), (nodes, inexact.get(int(unit_of[nodes[0]]), -1)))
    return _smallest(list(found.values()))


def _smallest(units: list[tuple[np.ndarray, int]]) -> list[tuple[np.ndarray, int]]:
    """Without the units that hold another one whole, unless only the larger one is exact."""
    sets = [frozenset(nodes.tolist()) for nodes, _ in units]
    with_node: dict[int, list[int]] = {}
    for number, own in enumerate(sets):
        for node in own:
            with_node.setdefault(node, []).append(number)
    larger = set()
    for number, own in enumerate(sets):
        for other in with_node[next(iter(own))]:
            if own < sets[other] and (units[number][1] < 0 or units[other][1] >= 0):
                larger.add(other)
    return [unit for number, unit in enumerate(units) if number not in larger]


def _slices(cluster: _Cluster, array: _Array, axis: int) -> np.ndarray:
    """The slices of `array` along `axis` that hold nothing that stays. Shape: slice x node."""
    slices = np.moveaxis(array.nodes, axis, 0).reshape(array.nodes.shape[axis], -1)
    if array.headed and axis == array.nodes.ndim - 1:
        slices = slices[:-1]
    return slices[(slices < len(cluster.members)).all(1)]


def _are_known(slices: np.ndarray, families: Sequence[np.ndarray]) -> bool:
    """Whether each slice lies in a unit found before: what grows from it is that unit."""
    known = np.zeros(len(slices), dtype=bool)
    for unit_of in families:
        units = unit_of[slices]
        known |= (units[:, 0] >= 0) & (units == units[:, :1]).all(1)
    return bool(known.all())


def _grown(cluster: _Cluster, slices: np.ndarray) -> np.ndarray:
    """The unit (a number) of every node after the slices have grown until each is a union of slices of every array;
    -1 for nodes in none, and for those tied to what stays or to a whole array."""
    num = len(cluster.members)
    ids, active = np.arange(num + 1), np.zeros(num + 1, dtype=bool)
    active[slices] = True
    edges = [np.stack((np.repeat(slices[:, 0], slices.shape[1]), slices.ravel()))]
    changed = active.copy()
    while edges[-1].size:
        joined = np.concatenate(edges, axis=1)
        nodes, local = np.unique(joined, return_inverse=True)
        roots = _connected(local.reshape(2, -1), len(nodes))
        is_active = np.zeros(int(roots.max()) + 1, dtype=bool)
        is_active[roots[active[nodes]]] = True
        _, firsts = np.unique(roots, return_index=True)
        merged = nodes[firsts][roots]
        changed[nodes[(ids[nodes] != merged) | (is_active[roots] & ~active[nodes])]] = True
        ids[nodes], active[nodes] = merged, is_active[roots]
        active &= ids != ids[num]
        touched = [array for array in cluster.arrays if changed[array.nodes].any()]
        changed[:] = False
        missing = [_missing(array, ids, active, num) for array in touched]
        edges.append(np.concatenate([edges[0][:, :0], *missing], axis=1))
    for array in cluster.arrays:  # a unit that is all of a tensor cannot go
        units = ids[array.nodes]
        if (units == units.flat[0]).all():
            active &= ids != units.flat[0]
    return np.where(active[:num], ids[:num], -1)


def _missing(array: _Array, ids: np.ndarray, active: np.ndarray, num: int) -> np.ndarray:
    """Edges that complete the slices of which an active unit holds a part; empty if all are whole."""
    units = ids[array.nodes]
    is_active = active[array.nodes]
    whole = np.zeros(units.shape, dtype=bool)
    for axis in range(units.ndim):
        others = tuple(a for a in range(units.ndim) if a != axis)
        is_one = units.min(others, keepdims=True) == units.max(others, keepdims=True)
        if array.headed and axis == units.ndim - 1:
            is_one = is_one.copy()
            is_one[..., -1] = False
        whole = whole | is_one
    bad = is_active & ~whole
    if not bad.any():
        return np.zeros((2, 0), dtype=int)
    choices = [_completion(array, np.where(is_active, units, -1 - units), bad, axis, num) for axis in range(units.ndim)]
    allowed = [choice for choice in choices if choice is not None]
    return min(allowed, key=lambda choice: choice[0])[1]


def _completion(
    array: _Array, units: np.ndarray, bad: np.ndarray, axis: int, num: int
) -> tuple[tuple[bool, float, float], np.ndarray] | None:
    """(cost, edges) to complete the slices along `axis` with a bad element; None where that is no slice that can go.

    The cost: whether it takes what stays, how many active units (not negative) it merges on average, and how many in
    all."""
    others = tuple(a for a in range(bad.ndim) if a != axis)
    touched = np.flatnonzero(bad.any(others))
    if array.headed and axis == bad.ndim - 1 and bad[..., -1].any():
        return None
    slices = np.moveaxis(array.nodes, axis, 0)[touched].reshape(len(touched), -1)
    met = np.sort(np.moveaxis(units, axis, 0)[touched].reshape(len(touched), -1), axis=1)
    is_new = np.diff(met, axis=1, prepend=met[:, :1] - 1) != 0
    edges = np.stack((np.repeat(slices[:, 0], slices.shape[1]), slices.ravel()))
    merged = float((is_new & (met >= 0)).sum(1).mean())
    return (bool((slices == num).any()), merged, float(is_new.sum(1).mean())), edges


def _inexact(cluster: _Cluster, unit_of: np.ndarray) -> dict[int, int]:
    """Unit -> number of the first read that its removal changes; exact units are not in it."""
    reasons: dict[int, int] = {}
    with_stays = np.append(unit_of, -1)
    for number, (array, read) in enumerate(cluster.reads):
        units = with_stays[array]
        is_partial = (units >= 0) & (units.min(read.axes, keepdims=True) != units.max(read.axes, keepdims=True))
        if read.takes_zeros:
            is_partial &= (read.labels < 0).numpy()
        for unit in np.unique(units[is_partial]).tolist():
            reasons.setdefault(unit, number)
    return reasons


def _connected(edges: np.ndarray, size: int) -> np.ndarray:
    graph = coo_array((np.ones(edges.shape[1], dtype=np.int8), (edges[0], edges[1])), shape=(size, size))
    return np.asarray(connected_components(graph, directed=False)[1])
