"""The change of a consumer's weights that brings its output nearest to what it should be, and no further than helps."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from amsc.reconstruction.moments import Moments

__all__ = ["RIDGES", "Solution", "error_with", "ridge_change", "solved"]

RIDGES = (1e-12, 1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Strengths that are tried, relative to the mean square of what is read."""
AS_GOOD = 1.001
"""How much larger the error may be than the least one: of strengths as good the strongest is taken. Weak ones follow
directions in which hardly anything is read with weights that are larger by orders of magnitude, which short formats and
training do not bear."""


@dataclass(frozen=True, eq=False)
class Solution:
    """The `change` of the matrices, shape (group, output, read), and of the `shift`, shape (group, output); and the
    squared error on the examples held out, which is less than it was `before`."""

    change: Tensor
    shift: Tensor
    ridge: float
    after: float


def solved(fit: Moments, held: Moments, weights: Tensor, *, with_shift: bool) -> Solution | None:
    """The change with the strongest strength that is as good as the best, judged by the examples held out; None where
    none is better than no change.

    `with_shift`: the last number read is a constant 1, whose coefficient is the shift. `weights` tell how much the
    squared error of each output counts; shape (group, output)."""
    before, found = _weighted(held, weights), list[Solution]()
    for ridge in RIDGES:
        change = ridge_change(fit, ridge, with_shift=with_shift)
        error = math.inf if change is None else error_with(held, change, weights)
        if change is not None and error < before:
            shift = change[..., -1] if with_shift else change.new_zeros(change.shape[:2])
            found.append(Solution(change[..., :-1] if with_shift else change, shift, ridge, error))
    least = min((one.after for one in found), default=math.inf)
    return next((one for one in reversed(found) if one.after <= AS_GOOD * least), None)


def ridge_change(moments: Moments, ridge: float, *, with_shift: bool) -> Tensor | None:
    """D = E[r u'] (E[u u'] + mu I)^-1, which minimises E |r - D u|^2 + mu |D|^2, mu `ridge` times the mean square of u.

    r is what the output lacks, so W + D is the ridge solution towards W. With a shift, which is not held back, u and r
    are taken from their means. None where the matrix is singular in double precision."""
    left, right = moments.inputs / moments.count, moments.products / moments.count
    means, shifts = left[..., :-1, -1], right[..., -1]
    if with_shift:
        left = left[..., :-1, :-1] - means[..., None] * means[..., None, :]
        right = right[..., :-1] - shifts[..., None] * means[..., None, :]
    size = left.diagonal(dim1=-2, dim2=-1).mean(-1)
    damped = left + torch.diag_embed((ridge * size).where(size > 0, 1.0)[..., None].expand(left.shape[:-1]))
    factor, failed = torch.linalg.cholesky_ex(damped)
    if bool(failed.any()):
        return None
    change = torch.cholesky_solve(right.mT, factor).mT
    if not with_shift:
        return change
    shift = shifts - (change @ means[..., None])[..., 0]
    return torch.cat([change, shift[..., None]], dim=-1)


def error_with(moments: Moments, change: Tensor, weights: Tensor) -> float:
    """The weighted mean of |r - D u|^2; infinite where it is not a number."""
    explained = 2 * moments.products - change @ moments.inputs
    error = moments.residuals - (change * explained).sum(-1)
    found = float((weights * error).sum()) / moments.count
    return max(found, 0.0) if math.isfinite(found) else math.inf


def _weighted(moments: Moments, weights: Tensor) -> float:
    return float((weights * moments.residuals).sum()) / moments.count
