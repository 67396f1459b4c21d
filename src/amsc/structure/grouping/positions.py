"""Which positions of which axes of the parameters every component of labels owns, in sorted arrays."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from amsc.structure.labels.ledger import Ledger
from amsc.structure.tracing.parameters import Parameter

__all__ = ["Axis", "Ownership", "UnitRows", "mixed"]


@dataclass(frozen=True)
class Axis:
    """One labelled axis of one parameter: label and component of every position (0: belongs to nothing removable)."""

    parameter: str
    axis: int
    role: str
    rank: int
    is_convolution: bool
    labels: np.ndarray
    components: np.ndarray

    def __str__(self) -> str:
        return f"{self.parameter}, axis {self.axis}"


class Ownership:
    """The connected components of a ledger's labels, and the rows (axis, position) each of them owns.

    `component[label]` is a label's component, 0 for what belongs to nothing removable; `counts[component]` the number
    of its rows; `axes` all labelled axes of `parameters`.
    """

    def __init__(self, ledger: Ledger, parameters: Iterable[Parameter]) -> None:
        self.component = ledger.components()
        self.component[0] = -1
        self.component += 1
        self.num_components = int(self.component.max()) + 1
        self.axes = [axis for parameter in parameters for axis in self._axes_of(parameter)]
        entry = np.repeat(np.arange(len(self.axes)), [len(axis.components) for axis in self.axes])
        nothing = np.zeros(0, dtype=int)
        position = np.concatenate([nothing, *(np.arange(len(axis.components)) for axis in self.axes)])
        owner = np.concatenate([nothing, *(axis.components for axis in self.axes)])
        order = np.lexsort((position, entry, owner))
        self._entry, self._position = entry[order], position[order]
        self.counts = np.bincount(owner, minlength=self.num_components)
        self._starts = np.cumsum(self.counts) - self.counts
        self.counts[0] = 0

    def _axes_of(self, parameter: Parameter) -> list[Axis]:
        rank, is_convolution = parameter.tensor.ndim, parameter.is_convolution
        own = ((axis, labels.numpy()) for axis, labels in parameter.axes.items())
        return [
            Axis(parameter.name, axis, parameter.roles[axis], rank, is_convolution, labels, self.component[labels])
            for axis, labels in own
        ]

    def rows(self, units: Sequence[Sequence[int]]) -> "UnitRows":
        """The rows of units, each a sequence of components."""
        components = np.array([one for unit in units for one in unit], dtype=int)
        unit = np.repeat(np.arange(len(units)), [len(unit) for unit in units])
        counts = self.counts[components]
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = np.repeat(self._starts[components], counts) + offsets
        unit = np.repeat(unit, counts)
        order = np.lexsort((self._position[rows], self._entry[rows], unit))
        return UnitRows(unit[order], self._entry[rows][order], self._position[rows][order])


class UnitRows:
    """Rows of units, sorted by unit, axis and position; runs are the rows of one unit on one axis."""

    def __init__(self, unit: np.ndarray, entry: np.ndarray, position: np.ndarray) -> None:
        self._unit, self._entry, self._position = unit, entry, position
        is_first = np.ones(len(unit), dtype=bool)
        is_first[1:] = (unit[1:] != unit[:-1]) | (entry[1:] != entry[:-1])
        starts = np.flatnonzero(is_first)
        self.run_unit, self.run_entry = unit[starts], entry[starts]
        self.run_count = np.diff(np.append(starts, len(unit)))

    def only(self, mask: np.ndarray) -> "UnitRows":
        """The rows of the units in `mask`, which are renumbered. Shape of `mask`: unit."""
        number = np.cumsum(mask) - 1
        kept = mask[self._unit]
        return UnitRows(number[self._unit[kept]], self._entry[kept], self._position[kept])

    def signatures(self) -> np.ndarray:
        """A number for each unit; equal for those with as many positions on the same axes. Shape: unit."""
        runs = mixed(self.run_entry.astype(np.uint64) << np.uint64(32) | self.run_count.astype(np.uint64))
        if not len(runs):
            return runs
        firsts = np.flatnonzero(np.append(True, self.run_unit[1:] != self.run_unit[:-1]))
        return np.asarray(np.add.reduceat(runs, firsts))

    def of_alike(self, numbers: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """(axis of each position, positions as unit x position) of units with the same signature."""
        starts = np.searchsorted(self._unit, numbers)
        count = int(np.searchsorted(self._unit, numbers[0], side="right") - starts[0])
        return self._entry[starts[0] : starts[0] + count], self._position[starts[:, None] + np.arange(count)]


def mixed(values: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit numbers that leaves no pattern (splitmix64), so that sums tell sets apart."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)))
