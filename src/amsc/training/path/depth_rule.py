"""Which point of the depth path to go on from."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["is_as_good", "one_standard_error_choice", "paired_difference", "paired_shortfall"]

ROUNDING = 1e-9
"""Scores that are 0 or 1 often differ by exactly one standard error: a single example lost, or three lost and one won.
This much more is rounding."""


def one_standard_error_choice(depths: Sequence[int], values: Sequence[Tensor], *, higher_is_better: bool = True) -> int:
    """Index of the network of smallest depth that is not worse than the best by more than one paired standard error.

    With d_i the best network's value minus this one's on example i, a network stays in the race while
    mean(d) <= sqrt(var(d) / n). The same examples are used for both, so what makes an example hard cancels;
    unpaired errors are about twice too wide (Hastie, Tibshirani & Friedman 2009, section 7.10, for the rule). Among
    networks of the same depth the latest is taken: it has been trained for longest.

    Args:
        depths: blocks left in each network.
        values: the score of every validation example under each network, each of shape (example,).
        higher_is_better: False where the values are losses.
    """
    signed = [value.double() if higher_is_better else -value.double() for value in values]
    means = [float(value.mean()) for value in signed]
    best = max(range(len(means)), key=means.__getitem__)
    good = [i for i, value in enumerate(signed) if is_as_good(signed[best], value)]
    return min(good, key=lambda i: (depths[i], -i))


def is_as_good(best: Tensor, other: Tensor) -> bool:
    """Whether the mean of `other` is not below that of `best` by more than one paired standard error. Shapes:
    (example,) both."""
    return paired_shortfall(best, other) <= 1 + ROUNDING


def paired_shortfall(best: Tensor, other: Tensor) -> float:
    """How many paired standard errors the mean of `other` lies below that of `best`; 0 or less if it does not.

    Infinite where it lies below by the same amount on every example. Shapes: (example,) both.
    """
    mean, error = paired_difference(best, other)
    if mean <= 0:
        return mean
    return mean / error if error > 0 else math.inf


def paired_difference(best: Tensor, other: Tensor) -> tuple[float, float]:
    """How far the mean of `other` lies below that of `best`, and the standard error of that; of a single example it is
    infinite. Shapes: (example,) both."""
    difference = best.double() - other.double()
    error = float(torch.std(difference)) / math.sqrt(len(difference)) if len(difference) > 1 else math.inf
    return float(difference.mean()), error
