"""Regularizers of all weights of channels: L2 penalties, whose strength is another for each channel."""

from collections.abc import Mapping

import torch
from torch import Tensor

from amsc.regularizers.parts import Going, GroupParts
from amsc.regularizers.regularizer import Regularizer

__all__ = ["Dependency", "Growing", "shrinkage"]

LEFT = 0.75
"""What is left of a channel that goes: all channels are shrunk, and a short training cannot make up for more."""
ALPHA = 4.0
"""The cheapest channel of a group is shrunk 2^alpha times as strongly as the dearest."""


class Dependency(Regularizer):
    """strength / 2 * sum_k gamma_k ||w_k||^2 over the channels k of each group, w_k being all weights that make it,
    read it and scale it: gamma_k = 2^(alpha (max I - I_k) / (max I - min I)) by the group norms I.

    Fang, Ma, Song, Mi and Wang 2023 (DepGraph), their group sparse learning; norms are taken anew in every step."""

    def needed(self, going: Going) -> float:
        """What leaves about three quarters of the one that is shrunk least; the largest that stays keeps nearly all."""
        found = [shrinkage(group).cpu()[going[group.name]] for group in self.groups]
        return self.course.strength(LEFT, min((float(each.min()) for each in found if len(each)), default=1.0))

    def apply(self, step: int, step_size: float) -> None:
        """w_k <- w_k / (1 + strength * step size * gamma_k)."""
        factors = [1 / (1 + self.strength * step_size * shrinkage(group)) for group in self.groups]  # of all at once
        for group, own in zip(self.groups, factors, strict=True):
            for part in group.weights:
                part.multiply(own)


def shrinkage(group: GroupParts) -> Tensor:
    """2^(alpha (max I - I_k) / (max I - min I)) for each channel; 1 where all are alike. Shape: channel."""
    squares = [part.squares(group.size) for part in group.weights]
    if not squares:
        return torch.ones(group.size)
    norms = torch.stack([one.to(squares[0]) for one in squares]).sum(0).sqrt()
    gap = (norms.max() - norms.min()).clamp(min=torch.finfo(norms.dtype).tiny)
    return 2 ** (ALPHA * (norms.max() - norms) / gap)


class Growing(Regularizer):
    """lambda_k / 2 * sum of squares of the filters that make channel k, where lambda grows evenly to `strength`: that
    of all channels at first, so that they come apart by how much the loss holds on to them; from a quarter of the steps
    on that of those which go for the target by the prices they have then, while the others are let go.

    Wang, Qin, Zhang and Fu 2021 (Neural pruning via growing regularization), GReg-2. Their lambda grows to 1 within
    50,000 steps, of which the first hundredth is for coming apart."""

    PICKING = 0.25

    picked: dict[str, Tensor] | None = None

    def needed(self, going: Going) -> float:
        """What leaves about a thousandth of those that are picked; BatchNorm lifts what is more."""
        return 2 * self.course.strength(0.001, 1.0)  # half of it on average

    def apply(self, step: int, step_size: float) -> None:
        """W_k <- W_k / (1 + lambda_k * step size)."""
        if self.picked is None and step >= self.PICKING * self.course.steps:
            self.picked = dict(self.course.going())
        factor = 1 / (1 + self.strength * (step + 1) / self.course.steps * step_size)
        for group in self.groups:
            pulled = torch.ones(group.size, dtype=torch.bool) if self.picked is None else self.picked[group.name]
            for part in group.makers:
                part.multiply(torch.where(pulled.to(part.parameter.device), factor, 1.0))

    def memory(self) -> dict[str, Tensor]:
        """Which channels were picked."""
        return {} if self.picked is None else dict(self.picked)

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        """Pick the same."""
        self.picked = {name: picked.bool() for name, picked in memory.items()} or None
