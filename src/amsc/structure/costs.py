"""From the work of a traced run to costs that follow a cut: proportional to axes of parameters."""

from collections.abc import Sequence
from math import prod

import numpy as np

from amsc.structure.labels import Work
from amsc.structure.ownership import Axis, Ownership
from amsc.structure.values import LayerCost

__all__ = ["layer_costs"]


def layer_costs(work: Sequence[Work], ownership: Ownership, shapes: dict[str, tuple[int, ...]]) -> list[LayerCost]:
    """The multiply-adds of every operator. A product of activations follows the axis of the parameter that made them;
    if there is none its cost is taken as fixed."""
    return [_layer_cost(one, ownership, shapes) for one in work]


def _layer_cost(work: Work, ownership: Ownership, shapes: dict[str, tuple[int, ...]]) -> LayerCost:
    along = list(work.along)
    positions = work.macs // prod(shapes[name][axis] for name, axis in along) if work.macs else 0
    for array in work.arrays:
        owner = _owner(ownership.component[array.abs().numpy()].ravel(), ownership)
        if owner is not None and positions % len(owner.components) == 0:
            along.append((owner.parameter, owner.axis))
            positions //= len(owner.components)
    return LayerCost(work.module, positions, tuple(along))


def _owner(components: np.ndarray, ownership: Ownership) -> Axis | None:
    """An axis that shrinks exactly in proportion to these components."""
    names, counts = np.unique(components, return_counts=True)
    for axis in ownership.axes_with(int(names[-1])):
        own, own_counts = np.unique(axis.components, return_counts=True)
        if np.array_equal(own, names) and (counts * own_counts[0] == own_counts * counts[0]).all():
            return axis
    return None
