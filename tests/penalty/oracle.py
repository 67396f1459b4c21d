"""Slow, obvious solutions of the nested problem, for comparison."""

import torch
from torch import Tensor


def slow_prox(y: list[Tensor], metric: Tensor, leaf: Tensor, root: float, steps: int = 4000) -> list[Tensor]:
    """argmin_x sum_j ||x_j - y_j||^2 / (2 d_j) + sum_j w_j ||x_j|| + t ||x|| for one root, by projected gradient
    on the dual: x_j = y_j - d_j (u_j + v_j) with ||u_j|| <= w_j and ||v|| <= t."""
    sizes = [len(block) for block in y]
    flat = torch.cat(y)
    d = metric.repeat_interleave(torch.tensor(sizes))
    u, v = torch.zeros_like(flat), torch.zeros_like(flat)
    rate = 1 / (2 * float(metric.max()))
    for _ in range(steps):
        x = flat - d * (u + v)
        moved = [(block, float(w)) for block, w in zip((u + rate * x).split(sizes), leaf, strict=True)]
        u, v = torch.cat([into_ball(block, w) for block, w in moved]), into_ball(v + rate * x, root)
    return list((flat - d * (u + v)).split(sizes))


def into_ball(vector: Tensor, radius: float) -> Tensor:
    norm = float(vector.norm())
    return vector if norm <= radius else vector * (radius / norm)


def distance_from_optimal(y: list[Tensor], x: list[Tensor], metric: Tensor, leaf: Tensor, root: float) -> float:
    """How far x is from satisfying the optimality conditions of the same problem, in units of its gradient."""
    total = torch.cat(x).norm()
    pulls = [
        (b - a) / d for a, b, d in zip(x, y, metric, strict=True)
    ]  # must lie in the subdifferential of the penalty
    if total == 0:
        excess = torch.stack([(p.norm() - w).clamp(min=0) for p, w in zip(pulls, leaf, strict=True)])
        return max(0.0, float(excess.norm() - root))
    errors = []
    for a, pull, w in zip(x, pulls, leaf, strict=True):
        if a.norm() == 0:
            errors.append(max(0.0, float(pull.norm() - w)))
        else:
            errors.append(float((pull - w * a / a.norm() - root * a / total).norm()))
    return max(errors)
