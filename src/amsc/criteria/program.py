"""A knapsack over sizes of groups, as a mixed-integer program for scipy."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from amsc.errors import TargetError

__all__ = ["Program"]

GAP = 1e-4
"""By which share of the best value a solution may fall short of it."""
NODES = 20_000
"""Branches of the search, at most: its outcome does not depend on the speed of the machine."""
STOPPED = 1
"""What scipy's `milp` says where it came to that limit."""

Row = dict[int, float]
"""Coefficients by the numbers of variables."""


class Program:
    """Each group gets one of its sizes, or none if its home is gone, for the most value in sum.

    x[g, s] = 1 where group g has its size s: sum_s x[g, s] = 1, or 1 - z[b] where it goes with block b. A product of
    two sizes is a sum over y[g, s, h, t] = x[g, s] x[h, t], which is 0 where one of the two is gone.

    Args:
        sizes: the sizes of each group that are allowed.
        values: what each is worth.
        home: the block with which a group goes, if it goes with one.
    """

    def __init__(
        self, sizes: Mapping[str, Sequence[int]], values: Mapping[str, Sequence[float]], home: Mapping[str, str]
    ) -> None:
        self._sizes, self._home = sizes, home
        self._worth: list[float] = []
        self._whole: list[int] = []
        self._rows: list[tuple[Row, float, float]] = []
        self._x = {name: [self._variable(value, whole=True) for value in values[name]] for name in sizes}
        self._z = {block: self._variable(0.0, whole=True) for block in sorted(set(home.values()))}
        self._y: dict[tuple[str, str], list[list[int]]] = {}
        for name, places in self._x.items():
            self._rows.append(({**dict.fromkeys(places, 1.0), **self._gone(name)}, 1.0, 1.0))

    def add_limit(self, terms: Iterable[tuple[tuple[str, ...], str, float]], amount: float) -> None:
        """The sum over (groups, block, factor) of `factor` times the sizes of the groups is at most `amount`; a term
        is 0 where its block is gone. Factors are not negative."""
        row, fixed = Row(), 0.0
        for groups, block, factor in terms:
            powers = Counter(groups)
            for name, power in list(powers.items())[2:]:
                factor *= max(self._sizes[name]) ** power
            chosen = list(powers.items())[:2]
            is_at_home = not block or any(self._home.get(name) == block for name, _ in chosen)
            for place, value in self._product(chosen) if chosen else ():
                self._add(row, place if is_at_home else self._unless(place, block), factor * value)
            if not chosen:
                fixed += factor
                if block:
                    self._add(row, self._z[block], -factor)
        self._rows.append(({place: value / amount for place, value in row.items()}, -np.inf, 1 - fixed / amount))

    def solved(self) -> dict[str, int] | None:
        """The size of each group that is left; None where no sizes keep to the limits.

        Raises:
            TargetError: the search ended before it found any.
        """
        rows, columns, factors = zip(
            *((number, place, value) for number, (row, _, _) in enumerate(self._rows) for place, value in row.items()),
            strict=True,
        )
        matrix = coo_array((factors, (rows, columns)), shape=(len(self._rows), len(self._worth))).tocsr()
        lowest, highest = (np.array([row[place] for row in self._rows]) for place in (1, 2))
        worth = np.array(self._worth)
        found = milp(
            -worth / max(1e-300, np.abs(worth).max()),
            constraints=LinearConstraint(matrix, lowest, highest),
            integrality=np.array(self._whole),
            bounds=Bounds(0, 1),
            options={"mip_rel_gap": GAP, "node_limit": NODES},
        )
        if found.x is None and found.status == STOPPED:
            raise TargetError(
                f"no network at this cost was found in {NODES} branches of the search; choose another "
                "criterion_spread, such as global"
            )
        if found.x is None:
            return None
        return {
            name: self._sizes[name][int(np.argmax(found.x[places]))]
            for name, places in self._x.items()
            if found.x[places].sum() > 0.5
        }

    def _variable(self, worth: float, *, whole: bool) -> int:
        self._worth.append(worth)
        self._whole.append(int(whole))
        return len(self._worth) - 1

    @staticmethod
    def _add(row: Row, place: int, value: float) -> None:
        row[place] = row.get(place, 0.0) + value

    def _gone(self, name: str) -> Row:
        """1 where the home of a group is gone."""
        return {self._z[self._home[name]]: 1.0} if name in self._home else {}

    def _product(self, chosen: Sequence[tuple[str, int]]) -> list[tuple[int, float]]:
        """The product of powers of the sizes of one or two groups, as a sum over variables."""
        (first, power), *rest = chosen
        own = [float(size) ** power for size in self._sizes[first]]
        if not rest:
            return list(zip(self._x[first], own, strict=True))
        ((second, other),) = rest
        pairs, others = self._pairs(first, second), [float(size) ** other for size in self._sizes[second]]
        return [(pairs[s][t], own[s] * others[t]) for s in range(len(own)) for t in range(len(others))]

    def _pairs(self, first: str, second: str) -> list[list[int]]:
        """y for each pair of sizes: x[g, s] - z[home of h] <= sum_t y[s, t] <= x[g, s], and the same the other way."""
        if (first, second) not in self._y:
            made = [[self._variable(0.0, whole=False) for _ in self._x[second]] for _ in self._x[first]]
            self._y[first, second] = made
            for own, other, lines in ((first, second, made), (second, first, list(map(list, zip(*made, strict=True))))):
                for place, line in zip(self._x[own], lines, strict=True):
                    balance = {**dict.fromkeys(line, 1.0), place: -1.0}
                    self._rows.append((balance, -np.inf, 0.0))
                    self._rows.append(({**balance, **self._gone(other)}, 0.0, np.inf))
        return self._y[first, second]

    def _unless(self, place: int, block: str) -> int:
        """A variable that is at least that one where the block is not gone; a limit has no use for more."""
        made = self._variable(0.0, whole=False)
        self._rows.append(({made: 1.0, place: -1.0, self._z[block]: 1.0}, 0.0, np.inf))
        return made
