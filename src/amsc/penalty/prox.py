"""Proximal maps of nested groups, as factors: every group of a proximal point is its old value times a number >= 0.

A *leaf* j is a set of coordinates y_j, a *root* l a set of leaves. With a metric d_j > 0 that is constant on each leaf,

    min_x  sum_j ||x_j - y_j||^2 / (2 d_j)  +  sum_j w_j ||x_j||  +  sum_l t_l ||x_l||_2

is solved exactly by the leaf map followed by the root map (Jenatton et al. 2011, Theorem 1; it carries over to this
metric because the root map only scales each leaf, which leaves the subdifferential of ||x_j|| as it was). The other
order is wrong.
"""

import torch
from torch import Tensor

from amsc.penalty.membership import Membership

__all__ = ["block_soft_threshold", "leaf_factors", "nested_factors", "root_factors"]

NEWTON_STEPS = 8
"""Newton steps for the root's norm: enough for float64 accuracy at every spread of the metric tried in the tests."""


def block_soft_threshold(values: Tensor, threshold: float) -> Tensor:
    """argmin_x ||x - values||^2 / 2 + threshold * ||x||_2: the block moved towards zero by `threshold`, or zero."""
    norm = torch.linalg.vector_norm(values)
    return values * leaf_factors(norm, norm.new_tensor(threshold))


def leaf_factors(norms: Tensor, thresholds: Tensor) -> Tensor:
    """max(0, 1 - threshold/norm) of each leaf; 1 where the threshold is zero, 0 where only the norm is. Shape: leaf."""
    is_zero = (thresholds > 0) & (norms <= thresholds)
    return torch.where(is_zero, 0.0, 1 - thresholds / torch.where(norms > 0, norms, 1.0))


def root_factors(norms: Tensor, metric: Tensor, strengths: Tensor, roots: Membership) -> Tensor:
    """Factors of the leaves in  min_x  sum_j ||x_j - y_j||^2 / (2 d_j) + sum_l t_l ||x_l||_2.

    With c_j = t d_j the root's new norm r solves sum_j ||y_j||^2 / (r + c_j)^2 = 1 and leaf j becomes
    y_j * r / (r + c_j); the root is zero if and only if sum_j (||y_j|| / c_j)^2 <= 1.

    Args:
        norms: ||y_j||. Shape: leaf.
        metric: d_j > 0. Shape: leaf.
        strengths: t_l >= 0; zero leaves the root's leaves as they are. Shape: root.
        roots: the root that each leaf belongs to; a leaf in none stays as it is.
    """
    largest = roots.maxima(norms)
    unit = roots.spread(torch.where(largest > 0, largest, 1.0), none=1.0)
    norms = norms / unit  # squares of small norms must not underflow
    shifts = roots.spread(strengths, none=0.0) * metric / unit
    is_zero = roots.sums(torch.where(norms > 0, norms / shifts, 0.0).square()) <= 1
    r = torch.where(is_zero, 0.0, _root_norm(norms, shifts, roots))
    r = roots.spread(r, none=0.0)
    return torch.where(shifts > 0, r / (r + shifts), 1.0)


def _root_norm(norms: Tensor, shifts: Tensor, roots: Membership) -> Tensor:
    """r > 0 with sum_j (norm_j / (r + shift_j))^2 = 1 for every non-zero root; anything for the others. Shape: root.

    Newton on 1/sqrt(f) - 1, which is concave and increasing in r: from the left it rises to the solution without
    overshooting. By Jensen's inequality r = N - mean(shift), weighted by norm^2, lies on the left.
    """
    squares = norms.square()
    total = roots.sums(squares)
    mean_shift = roots.sums(squares * shifts) / total
    r = (total.sqrt() - mean_shift).clamp(min=0)
    for _ in range(NEWTON_STEPS):
        inverse = 1 / (roots.spread(r, none=1.0) + shifts)
        terms = squares * inverse.square()
        f, slope = roots.sums(terms), roots.sums(terms * inverse)
        r = r + f * (f.sqrt() - 1) / slope
    return r


def nested_factors(
    norms: Tensor, metric: Tensor, leaf_strengths: Tensor, root_strengths: Tensor, roots: Membership
) -> Tensor:
    """Factors of the leaves that solve the nested problem at the top of this file: leaf map, then root map.

    Args:
        norms: ||y_j||. Shape: leaf.
        metric: d_j > 0, the step size in each leaf's coordinates. Shape: leaf.
        leaf_strengths: w_j >= 0. Shape: leaf.
        root_strengths: t_l >= 0. Shape: root.
        roots: the root that each leaf belongs to.
    """
    inner = leaf_factors(norms, metric * leaf_strengths)
    return inner * root_factors(norms * inner, metric, root_strengths, roots)
