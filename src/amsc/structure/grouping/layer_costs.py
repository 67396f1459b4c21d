"""From the work of a traced run to costs that follow a cut: proportional to axes of parameters."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import takewhile
from math import prod

import numpy as np

from amsc.structure.grouping.positions import Axis, Ownership, mixed
from amsc.structure.labels.ledger import Work
from amsc.structure.parts import ChannelGroup, LayerCost

__all__ = ["AxisOwners", "layer_costs"]

_MOST_UNITS = 1 << 32  # of a group: numbers of units are told apart by it

Shapes = dict[str, tuple[int, ...]]


def layer_costs(work: Sequence[Work], owners: "AxisOwners", shapes: Shapes) -> list[LayerCost]:
    """The multiply-adds of every operator. A product of activations follows the axis of the parameter that made them,
    which the `owners` tell; if there is none that may lose channels, its cost is fixed."""
    return [_layer_cost(one, owners, shapes) for one in work]


class AxisOwners:
    """The axes that can lose channels, by what lies along them: components in the same units of all groups go together,
    and are one kind."""

    def __init__(self, ownership: Ownership, channels: Sequence[ChannelGroup]) -> None:
        axes = {(axis.parameter, axis.axis): axis for axis in ownership.axes}
        self._component = ownership.component
        self._kind = np.zeros(ownership.num_components, dtype=np.uint64)  # 0: in no unit, stays
        for number, group in enumerate(channels):
            indices = {id(member.indices): np.array(member.indices) for member in group.members}
            pairs = [
                np.arange(group.size)[:, None] * ownership.num_components
                + axes[member.parameter, member.axis].components[indices[id(member.indices)]]
                for member in group.members
            ]
            unit, component = np.divmod(np.unique(np.concatenate(pairs, axis=None)), ownership.num_components)
            np.add.at(self._kind, component, mixed((unit + number * _MOST_UNITS).astype(np.uint64)))
        self._by_last: dict[int, list[tuple[Axis, np.ndarray, np.ndarray]]] = defaultdict(list)
        for key in {(member.parameter, member.axis): None for group in channels for member in group.members}:
            kinds, counts = self._counted(axes[key].components)
            self._by_last[int(kinds[-1])].append((axes[key], kinds, counts))

    def of(self, labels: np.ndarray, module: str, number: int) -> Axis | None:
        """An axis that shrinks exactly in proportion to what has these labels, of a size that divides `number`; the
        nearest to `module`, since one in a block elsewhere would be gone with it."""
        found = [axis for axis in self.in_proportion(labels) if number % len(axis.components) == 0]
        return max(found, key=lambda axis: _common(axis.parameter, module), default=None)

    def in_proportion(self, labels: np.ndarray) -> list[Axis]:
        """The axes that shrink exactly in proportion to what has these labels."""
        kinds, counts = self._counted(self._component[labels])
        return [
            axis
            for axis, own, own_counts in self._by_last[int(kinds[-1])]
            if np.array_equal(own, kinds) and (counts * own_counts[0] == own_counts * counts[0]).all()
        ]

    def alike(self, labels: np.ndarray, others: np.ndarray) -> bool:
        """Whether the same goes from what has these labels and from what has the others, position by position."""
        return np.array_equal(self._kind[self._component[labels]], self._kind[self._component[others]])

    def _counted(self, components: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The kinds among the components, in order, and how often each occurs."""
        return np.unique(self._kind[components], return_counts=True)


def _layer_cost(work: Work, owners: AxisOwners, shapes: Shapes) -> LayerCost:
    along = list(work.along)
    positions = work.macs // prod(shapes[name][axis] for name, axis in along) if work.macs else 0
    for array in work.arrays:
        owner = owners.of(array.abs().numpy().ravel(), work.module, positions)
        if owner is not None:
            along.append((owner.parameter, owner.axis))
            positions //= len(owner.components)
    return LayerCost(work.module, positions, tuple(along))


def _common(parameter: str, module: str) -> int:
    """How many modules around the parameter are around `module` too."""
    pairs = zip(parameter.split(".")[:-1], module.split("."), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
