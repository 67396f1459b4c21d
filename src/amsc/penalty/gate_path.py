"""The path of the gates: which groups close at which strength, from per-example derivatives, without training.

With theta_g = s_g theta_hat_g the adaptive penalty becomes lambda * sum w_g s_g, and the loss near s = 1 is a quadratic
whose curvature is the Fisher information of the gates: least-squares approximation of the AMSC path at theta_hat
(Wang & Leng 2007).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from amsc.errors import SettingsError

__all__ = ["GateProblem", "closing_order", "solve_gates"]

SHRINKAGE = 0.5
"""How far the curvature is drawn towards its diagonal (Ledoit & Wolf 2004). Few examples make up most of the Fisher
information of a trained network; along directions they do not see, gates would seem to make up for each other."""
TOLERANCE = 1e-7
"""Largest violation of the optimality conditions, relative to the terms of each gate's derivative."""
MOST_STEPS = 100
STRENGTHS = 100
"""Strengths of the path, geometric over `SPAN`."""
SPAN = 1e-5


@dataclass(frozen=True)
class GateProblem:
    """minimise over t: 1/2 t'At - b't - strength * w't, 0 <= t <= 1; t = 1 - s says how far each gate is closed.

    A = (1 - rho) J'J/n + rho diag(J'J/n), rho = `SHRINKAGE`, for the derivatives J of the losses of n examples by the
    gates at s = 1; A is never formed. b is their mean, less what gates that are closed for good add to it (`without`).

    Attributes:
        rows: R = sqrt((1 - rho) / n) J. Shape: example, gate.
        ridge: what is added to the diagonal of R'R. Shape: gate.
        linear: b. Shape: gate.
        weights: w, positive. Shape: gate.
    """

    rows: Tensor
    ridge: Tensor
    linear: Tensor
    weights: Tensor

    @classmethod
    def of(cls, gradients: Tensor, weights: Tensor) -> "GateProblem":
        """The problem for derivatives of each example's loss by each gate. Shapes: (example, gate), gate.

        Raises:
            SettingsError: there is no example, or a weight is not positive.
        """
        if not len(gradients):
            raise SettingsError("the path of the gates needs the derivatives of at least one example; there are none")
        if not bool((weights > 0).all()):
            raise SettingsError("the weights of gates must be positive")
        rows = gradients.double()
        own = rows.square().mean(0)
        floor = 1e-12 * (float(own.max()) if own.numel() else 0.0) + 1e-30  # gates that the loss does not see
        scale = ((1 - SHRINKAGE) / len(rows)) ** 0.5
        return cls(scale * rows, SHRINKAGE * own + floor, rows.mean(0), weights.double())

    def without(self, closed: Tensor, kept: Tensor) -> "GateProblem":
        """The problem of the gates `kept` when the gates `closed` are at t = 1. Shapes: index, index (long)."""
        push = self.rows[:, closed].sum(1)
        rows = self.rows[:, kept]
        return GateProblem(rows, self.ridge[kept], self.linear[kept] - rows.T @ push, self.weights[kept])

    def predicted_increase(self, closed: Tensor) -> float:
        """1/2 t'At - b't with t = 1 on the gates `closed` (indices), 0 elsewhere: how much the mean loss is predicted
        to grow. A guess from s = 1 alone; it ranks structures better than it forecasts losses."""
        moved = self.rows[:, closed].sum(1).square().sum() + self.ridge[closed].sum()
        return float(moved / 2 - self.linear[closed].sum())

    def standard_error(self, closed: Tensor) -> float:
        """How far the slope b't may be off by the choice of examples; infinite for a single one."""
        count = len(self.rows)
        slopes = self.rows[:, closed].sum(1) * (count / (1 - SHRINKAGE)) ** 0.5
        return float(slopes.std()) / count**0.5 if count > 1 else float("inf")


def solve_gates(problem: GateProblem, strength: float, start: Tensor | None = None) -> Tensor:
    """The t that minimises the problem at one strength, to `TOLERANCE`. Shape: gate.

    Projected Newton steps (Bertsekas 1982) from `start`: gates at a bound that their derivative holds there stay, the
    others make the exact Newton step, clipped, and halved until the objective falls. The curvature matrix of the free
    gates is inverted through the smaller of gates and examples.
    """
    t = torch.zeros_like(problem.weights) if start is None else start.clone()
    ridge, push = problem.ridge, problem.linear + strength * problem.weights
    scale = problem.rows.square().sum(0) + ridge + problem.linear.abs() + abs(strength) * problem.weights
    for _ in range(MOST_STEPS):
        derivative = problem.rows.T @ (problem.rows @ t) + ridge * t - push
        projected = t - (t - derivative / scale).clamp(0, 1)
        if float(projected.abs().max()) <= TOLERANCE:
            break
        free = ~((t <= 0) & (derivative > 0) | (t >= 1) & (derivative < 0))
        step = torch.zeros_like(t)
        step[free] = _newton_step(problem.rows[:, free], ridge[free], derivative[free])
        t = _descended(problem, ridge, push, t, step, derivative)
    return t


def _newton_step(rows: Tensor, ridge: Tensor, derivative: Tensor) -> Tensor:
    """-(R'R + D)^-1 derivative. Shapes: (example, gate), gate, gate."""
    num_examples, num_gates = rows.shape
    if num_gates <= num_examples:
        step: Tensor = torch.linalg.solve(rows.T @ rows + ridge.diag(), -derivative)
        return step
    scaled = rows / ridge  # Woodbury: (R'R + D)^-1 = D^-1 - D^-1 R'(I + R D^-1 R')^-1 R D^-1
    inner = scaled @ rows.T + torch.eye(num_examples, dtype=rows.dtype)
    solved: Tensor = torch.linalg.solve(inner, scaled @ derivative)
    return scaled.T @ solved - derivative / ridge


def _descended(
    problem: GateProblem, ridge: Tensor, push: Tensor, t: Tensor, step: Tensor, derivative: Tensor
) -> Tensor:
    """The point along the clipped step at which the objective has fallen enough."""
    size = 1.0
    while size > 1e-12:
        new = (t + size * step).clamp(0, 1)
        move = new - t
        quadratic = float((problem.rows @ move).square().sum() + (ridge * move.square()).sum()) / 2
        slope = float(derivative @ move)
        if quadratic + slope <= 1e-4 * slope:
            return new
        size /= 2
    scale = problem.rows.square().sum(0) * len(t) + ridge  # a step that is always short enough
    return (t - derivative / scale).clamp(0, 1)


def closing_order(problem: GateProblem) -> tuple[Tensor, Tensor]:
    """Gates in the order in which they close for good, and the strength at which each does.

    The path is followed from strength 0 over `STRENGTHS` geometric strengths to that at which all are closed, each
    solved from the last. Among gates that close between two strengths, the one that would stay closed at the lowest
    goes first. Shapes: gate (long), gate.
    """
    num_gates = len(problem.weights)
    if not num_gates:
        return torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.float64)
    scaled = replace(problem, weights=problem.weights / problem.weights.mean())
    all_closed = scaled.rows.T @ scaled.rows.sum(1) + scaled.ridge - scaled.linear
    last = float((all_closed / scaled.weights).max())
    strengths = [0.0, *(last * SPAN ** (1 - k / (STRENGTHS - 1)) for k in range(STRENGTHS))] if last > 0 else [0.0]
    t = torch.zeros(num_gates, dtype=torch.float64)
    since = torch.full((num_gates,), torch.inf, dtype=torch.float64)
    eager = since.clone()
    for strength in strengths:
        t = solve_gates(scaled, strength, t)
        closed = t >= 1
        # how far the strength could fall, all else equal, before the gate opens
        needed = (scaled.rows.T @ (scaled.rows @ t) + scaled.ridge * t - scaled.linear) / scaled.weights
        is_new = closed & since.isinf()
        since = torch.where(is_new, strength, since.masked_fill(~closed, torch.inf))
        eager = torch.where(is_new, needed, eager)
    order = sorted(range(num_gates), key=lambda gate: (float(since[gate]), float(eager[gate])))
    return torch.tensor(order, dtype=torch.long), since
