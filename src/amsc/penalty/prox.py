"""Proximal maps of nested groups, as factors: every group of a proximal point is its old value times a number >= 0.

A *leaf* j is a set of coordinates y_j, a *root* l a set of leaves. With a metric d_j > 0 that is constant on each leaf,

    min_x  sum_j ||x_j - y_j||^2 / (2 d_j)  +  sum_j w_j ||x_j||  +  sum_l t_l ||x_l||_2

is solved exactly by the leaf map followed by the root map (Jenatton et al. 2011, Theorem 1; it carries over to this
metric because the root map only scales each leaf, which leaves the subdifferential of ||x_j|| as it was). The other
order is wrong.
"""

import torch
from torch import Tensor

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


def root_factors(norms: Tensor, metric: Tensor, strengths: Tensor, root: Tensor) -> Tensor:
    """Factors of the leaves in  min_x  sum_j ||x_j - y_j||^2 / (2 d_j) + sum_l t_l ||x_l||_2.

    With c_j = t d_j the root's new norm r solves sum_j ||y_j||^2 / (r + c_j)^2 = 1 and leaf j becomes
    y_j * r / (r + c_j); the root is zero if and only if sum_j (||y_j|| / c_j)^2 <= 1.

    Args:
        norms: ||y_j||. Shape: leaf.
        metric: d_j > 0. Shape: leaf.
        strengths: t_l >= 0; zero leaves the root's leaves as they are. Shape: root.
        root: the root each leaf belongs to. Shape: leaf (integers).
    """
    largest = torch.zeros_like(strengths).scatter_reduce_(0, root, norms, "amax")
    unit = torch.where(largest > 0, largest, 1.0)[root]
    norms = norms / unit  # squares of small norms must not underflow
    shifts = strengths[root] * metric / unit
    is_zero = _sum_by(root, torch.where(norms > 0, norms / shifts, 0.0).square(), strengths) <= 1
    r = _root_norm(norms, shifts, strengths, root)[root]
    factors = torch.where(is_zero[root], 0.0, r / (r + shifts))
    return torch.where(shifts > 0, factors, 1.0)


def _root_norm(norms: Tensor, shifts: Tensor, like: Tensor, root: Tensor) -> Tensor:
    """r > 0 with sum_j (norm_j / (r + shift_j))^2 = 1 for every non-zero root; anything for the others. Shape: root.

    Newton on 1/sqrt(f) - 1, which is concave and increasing in r: from the left it rises to the solution without
    overshooting. By Jensen's inequality r = N - mean(shift), weighted by norm^2, lies on the left.
    """
    squares = norms.square()
    total = _sum_by(root, squares, like)
    mean_shift = _sum_by(root, squares * shifts, like) / total
    r = (total.sqrt() - mean_shift).clamp(min=0)
    for _ in range(NEWTON_STEPS):
        inverse = 1 / (r[root] + shifts)
        terms = squares * inverse.square()
        f, slope = _sum_by(root, terms, like), _sum_by(root, terms * inverse, like)
        r = r + f * (f.sqrt() - 1) / slope
    return r


def _sum_by(root: Tensor, values: Tensor, like: Tensor) -> Tensor:
    """Sums of `values` over the leaves of each root. Shape: that of `like`."""
    return torch.zeros_like(like).index_add_(0, root, values)


def nested_factors(
    norms: Tensor, metric: Tensor, leaf_strengths: Tensor, root_strengths: Tensor, root: Tensor
) -> Tensor:
    """Factors of the leaves that solve the nested problem at the top of this file: leaf map, then root map.

    Args:
        norms: ||y_j||. Shape: leaf.
        metric: d_j > 0, the step size in each leaf's coordinates. Shape: leaf.
        leaf_strengths: w_j >= 0. Shape: leaf.
        root_strengths: t_l >= 0. Shape: root.
        root: the root each leaf belongs to (give leaves without one a root of strength zero). Shape: leaf (integers).
    """
    inner = leaf_factors(norms, metric * leaf_strengths)
    return inner * root_factors(norms * inner, metric, root_strengths, root)
