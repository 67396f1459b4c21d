"""Which operators tie positions together that then have to stay: what a user is told."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from amsc.structure.grouping.positions import Axis
from amsc.structure.labels.ledger import Box, Ledger

__all__ = ["all_of", "ties_of_boxes", "whole_axes"]


def whole_axes(ledger: Ledger, component: np.ndarray, axes: Sequence[Axis]) -> dict[int, str]:
    """Why each component that is a whole axis by itself stays: the layer would be empty. With the operator that tied
    the last of its positions to the others."""
    first: dict[int, Axis] = {}
    for axis in axes:
        if axis.components[0] != 0 and (axis.components == axis.components[0]).all():
            first.setdefault(int(axis.components[0]), axis)
    ties = _last_ties(ledger, component, {one: axis.labels for one, axis in first.items()}) if first else {}
    return {one: all_of(ledger, axis, ties.get(one, "")) for one, axis in first.items()}


def all_of(ledger: Ledger, axis: Axis, tie: str) -> str:
    """The reason that something is a whole axis, whose positions the operator `tie` ("": unknown) holds together."""
    reason = f"it is all of {axis}" + (f"; what ties it together: {tie}" if tie else "")
    ledger.sources.setdefault(reason, ledger.sources.get(tie, ""))
    return reason


def _last_ties(ledger: Ledger, component: np.ndarray, wholes: Mapping[int, np.ndarray]) -> dict[int, str]:
    """For each component the reason of the union after which its labels, some of all that it has, were one set."""
    is_wanted = np.zeros(int(component.max()) + 1, dtype=bool)
    is_wanted[list(wholes)] = True
    count = np.zeros(len(component), dtype=int)
    for labels in wholes.values():
        count[labels] = 1
    found: dict[int, str] = {}
    root, num = list(range(len(component))), count.tolist()
    for edges, reason in zip(ledger.edges, ledger.ties, strict=True):
        wanted = edges.numpy()[:, is_wanted[component[edges[0].numpy()]]]
        for left, right in wanted.T.tolist():
            one, other = _root(root, left), _root(root, right)
            if one != other:
                root[other] = one
                num[one] += num[other]
                whole = int(component[one])
                if num[one] == len(wholes[whole]):
                    found.setdefault(whole, reason)
    return found


def _root(parent: list[int], label: int) -> int:
    while parent[label] != label:
        parent[label] = parent[parent[label]]
        label = parent[label]
    return label


def ties_of_boxes(component: np.ndarray, boxes: Iterable[Box]) -> dict[int, str]:
    """The operator that first laid each component out along several axes, so that only whole slices of it can go."""
    reasons: dict[int, str] = {}
    for box in boxes:
        for one in np.unique(component[box.labels.numpy()]).tolist():
            reasons.setdefault(one, box.reason)
    return reasons
