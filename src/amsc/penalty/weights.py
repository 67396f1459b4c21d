"""How strongly each group is penalised: the adaptive weights of AMSC and their ablations.

Every family is divided by its own mean, so that one strength means the same in every network and for every family
(raw AMSC weights put the penalty in the thousands).
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from amsc.errors import SettingsError

__all__ = [
    "WEIGHTS",
    "adaptive_weights",
    "floored",
    "group_weights",
    "reversed_weights",
    "sensitivity_weights",
    "size_weights",
    "uniform_weights",
]

FLOOR = 0.01
"""Smallest norm that counts, in medians: without it one dead channel would take all the weight of its family."""


def floored(norms: Tensor) -> Tensor:
    """`norms` raised to at least 0.01 of the median of the non-zero ones; ones where all are zero. Shape: group."""
    alive = norms[norms > 0]
    if alive.numel() == 0:
        return torch.ones_like(norms)
    return norms.clamp(min=FLOOR * float(alive.median()))


def adaptive_weights(sizes: Tensor, norms: Tensor) -> Tensor:
    """sqrt(q_g) / ||theta_hat_g||, the weights of AMSC (Eq. 4). Small groups of the trained network go first."""
    return sizes.clamp(min=1).sqrt() / floored(norms)


def uniform_weights(sizes: Tensor, norms: Tensor) -> Tensor:
    """1 for every group (structured sparsity learning, Wen et al. 2016)."""
    return torch.ones_like(norms)


def size_weights(sizes: Tensor, norms: Tensor) -> Tensor:
    """sqrt(q_g), the group lasso (Yuan & Lin 2006)."""
    return sizes.clamp(min=1).sqrt().to(norms)


def reversed_weights(sizes: Tensor, norms: Tensor) -> Tensor:
    """||theta_hat_g|| / sqrt(q_g), the reciprocal of AMSC's weights: the control that should do badly."""
    return adaptive_weights(sizes, norms).reciprocal()


WEIGHTS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "amsc": adaptive_weights,
    "ssl": uniform_weights,
    "gl": size_weights,
    "rw": reversed_weights,
}
"""Families of weights by name; each maps (sizes, norms), both of shape `group`, to weights before normalisation."""


def sensitivity_weights(sizes: Tensor, norms: Tensor, sensitivities: Tensor, speeds: Tensor) -> Tensor:
    """Weights that empty the group first which costs the loss least per unit saved, divided by their mean.

    With a gate s_g on each group, theta_g = s_g theta_hat_g, closing the gate costs the loss about F_g / 2, F_g the
    mean square of its derivative by the gate (the Fisher information). A group of norm n under weight w and strength
    lambda is emptied after n / (lambda w v) of accumulated step size, v the speed at which its metric lets the
    proximal map move it. With the price p = F / q, w = n / (v p^2) makes that time p^2 / lambda. The square is the
    exponent of the adaptive lasso (Zou 2006): when one group is gone, one of twice its price has lost a quarter of its
    norm; with p itself it would have lost half.

    Args:
        sizes: q. Shape: group.
        norms: n. Shape: group.
        sensitivities: F, floored at a thousandth of its median. Shape: group.
        speeds: v. Shape: group.
    """
    sensitivities = sensitivities.to(norms)
    alive = sensitivities[sensitivities > 0]
    floor = 1e-3 * float(alive.median()) if alive.numel() else 1.0
    prices = sensitivities.clamp(min=floor) / sizes.clamp(min=1).to(norms)
    # Double: squares of prices per multiply-add leave the range of float32.
    weights = (floored(norms).double() / (speeds.double() * (prices / prices.mean()).double().square())).to(norms)
    return weights / weights.mean() if weights.numel() else weights


def group_weights(family: str, sizes: Tensor, norms: Tensor) -> Tensor:
    """The weights of `family` for groups of these sizes and norms, divided by their mean.

    Args:
        family: a key of `WEIGHTS`.
        sizes: q, what a group holds (parameters) or saves (multiply-adds); less than 1 counts as 1. Shape: group.
        norms: norms of the groups at theta_hat. Shape: group.

    Raises:
        SettingsError: there is no such family.
    """
    if family not in WEIGHTS:
        raise SettingsError(f"weights must be one of {', '.join(sorted(WEIGHTS))}; got {family!r}")
    weights = WEIGHTS[family](sizes.to(norms), norms)
    return weights / weights.mean() if weights.numel() else weights
