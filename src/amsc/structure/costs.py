"""From the work of a traced run to costs that follow a cut: proportional to axes of parameters."""

from collections.abc import Sequence
from itertools import takewhile
from math import prod

import numpy as np

from amsc.structure.labels import Work
from amsc.structure.ownership import Axis, Ownership
from amsc.structure.parts import ChannelGroup, LayerCost

__all__ = ["layer_costs"]

Shapes = dict[str, tuple[int, ...]]


def layer_costs(
    work: Sequence[Work], ownership: Ownership, shapes: Shapes, channels: Sequence[ChannelGroup]
) -> list[LayerCost]:
    """The multiply-adds of every operator. A product of activations follows the axis of the parameter that made them;
    if there is none that may lose `channels`, its cost is fixed."""
    shrinking = {(member.parameter, member.axis) for group in channels for member in group.members}
    return [_layer_cost(one, ownership, shapes, shrinking) for one in work]


def _layer_cost(work: Work, ownership: Ownership, shapes: Shapes, shrinking: set[tuple[str, int]]) -> LayerCost:
    along = list(work.along)
    positions = work.macs // prod(shapes[name][axis] for name, axis in along) if work.macs else 0
    for array in work.arrays:
        owner = _owner(ownership.component[array.abs().numpy()].ravel(), ownership, work.module)
        is_fixed = owner is None or (owner.parameter, owner.axis) not in shrinking
        if owner is not None and not is_fixed and positions % len(owner.components) == 0:
            along.append((owner.parameter, owner.axis))
            positions //= len(owner.components)
    return LayerCost(work.module, positions, tuple(along))


def _owner(components: np.ndarray, ownership: Ownership, module: str) -> Axis | None:
    """An axis that shrinks exactly in proportion to these components; the nearest to `module`, since one in a block
    elsewhere would be gone with it."""
    names, counts = np.unique(components, return_counts=True)
    found = []
    for axis in ownership.axes_with(int(names[-1])):
        own, own_counts = np.unique(axis.components, return_counts=True)
        if np.array_equal(own, names) and (counts * own_counts[0] == own_counts * counts[0]).all():
            found.append(axis)
    return max(found, key=lambda axis: _common(axis.parameter, module), default=None)


def _common(parameter: str, module: str) -> int:
    """How many modules around the parameter are around `module` too."""
    pairs = zip(parameter.split(".")[:-1], module.split("."), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
