"""Which point of a path each replicate takes, and whether what it holds is the teacher's structure."""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist

import torch
from benchmarks.theory.estimators import Point
from benchmarks.theory.networks import Stack, uppers
from benchmarks.theory.teachers import STUDENT, TEACHER
from torch import Tensor

from amsc.training.path.depth_rule import one_standard_error_choice

__all__ = ["RULES", "chosen", "has_depth", "has_width", "merged_units", "wilson"]


PARALLEL = 0.99
"""Units of which the cosine is above this, or below its negative, are one."""


def _minimum(sizes: Tensor, values: Tensor) -> int:
    means = values.mean(1)
    return min(range(len(sizes)), key=lambda i: (float(means[i]), int(sizes[i])))


def _one_standard_error(sizes: Tensor, values: Tensor) -> int:
    return one_standard_error_choice(sizes.tolist(), list(values), higher_is_better=False)


RULES: Mapping[str, tuple[str, Callable[[Tensor, Tensor], int]] | None] = {
    "one-standard-error": ("settled", _one_standard_error),  # amsc's own
    "minimum": ("settled", _minimum),
    "minimum, shrunk": ("shrunk", _minimum),  # the paper's
    "bic": None,
}
"""For each rule the losses that it looks at, and how it chooses from the sizes of networks (shape: point) and these
losses (shape: point, example)."""


def chosen(points: Sequence[Point], rule: str, *, by_depth: bool, examples: int) -> list[int]:
    """For each replicate the index of the point that the rule takes; smaller means fewer blocks, or fewer units."""
    kind = RULES[rule]
    if kind is None:
        return _bic(points, examples * STUDENT.inputs)
    sizes = torch.stack([point.depth if by_depth else point.units.sum(1) for point in points], 1)
    values = torch.stack([getattr(point, kind[0]) for point in points], 1)
    return [kind[1](size, value) for size, value in zip(sizes, values, strict=True)]


def _bic(points: Sequence[Point], observations: int) -> list[int]:
    """N log(mean squared error) + log(N) parameters, least (Schwarz 1978); a unit holds a row, a bias and a column."""
    held = torch.stack([point.units.sum(1) * (2 * STUDENT.inputs + 1) for point in points], 1)
    fits = torch.stack([point.fit for point in points], 1)
    found: list[int] = (observations * fits.log() + math.log(observations) * held).argmin(1).tolist()
    return found


def has_depth(units: Tensor) -> Tensor:
    """Whether as many blocks are left as the teacher has. Shapes: (replicate, block); replicate."""
    return (units > 0).sum(1) == len(TEACHER.units)


def has_width(units: Tensor) -> Tensor:
    """Whether the blocks that are left have the teacher's widths, in their order. Shapes: as `has_depth`."""
    return torch.tensor([tuple(row[row > 0].tolist()) == TEACHER.units for row in units], dtype=torch.bool)


def merged_units(stack: Stack) -> Tensor:
    """Live units of each block, those whose filter and bias point the same or the opposite way counted as one.

    Shape: (replicate, block)."""
    counts = []
    for up, units in zip(uppers(stack), stack.shape.units, strict=True):
        filters = torch.cat([up.weight, up.bias[:, None]], 1).detach().view(stack.replicates, units, -1)
        live, ways = (filters[..., :-1] != 0).any(2), torch.nn.functional.normalize(filters, dim=2)
        is_same = (ways @ ways.mT).abs() > PARALLEL
        has_earlier = (is_same.tril(-1) & live[:, None]).any(2)
        counts.append((live & ~has_earlier).sum(1))
    return torch.stack(counts, 1)


def wilson(hits: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """The interval for a probability of which `hits` in `count` were seen (Wilson 1927)."""
    z = NormalDist().inv_cdf(0.5 + level / 2)
    centre, spread = (hits + z**2 / 2) / (count + z**2), z / (count + z**2)
    half = spread * math.sqrt(hits * (count - hits) / count + z**2 / 4)
    return max(0.0, centre - half), min(1.0, centre + half)
