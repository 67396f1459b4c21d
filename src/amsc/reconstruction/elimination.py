"""Structured elimination by second-order prices: what a layer's error becomes as channels go and others make up."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Reader", "elimination"]

RIDGE = 1e-2
"""mu, as a share of the mean square of what a layer reads."""
ROUNDS = 64
"""A group goes in so many rounds, or one channel after the other if it is smaller."""


@dataclass(eq=False)
class Reader:
    """A layer y = W u that reads a group of channels: `weights` W and `inverse` (H + mu I)^-1 as they are by now,
    `columns` those of each channel, shape (channel, place), and `alone` what each adds to the error if nothing makes up
    for it, shape (channel). `scale` makes errors shares of the variance of y.

    Shapes: `weights` (output, read), `inverse` (read, read)."""

    weights: Tensor
    inverse: Tensor
    columns: Tensor
    alone: Tensor
    scale: float

    @classmethod
    def of(cls, weights: Tensor, moments: Tensor, columns: Tensor) -> "Reader":
        """The layer with all of its inputs, whose second moments are H. Shapes: (output, read), (read, read), (channel,
        place)."""
        ridge = RIDGE * float(moments.diagonal().mean()) or 1.0  # what is always zero can be had from nothing
        damped = moments + ridge * torch.eye(len(moments)).to(moments)
        own, total = weights[:, columns].movedim(1, 0), float(((weights @ damped) * weights).sum())
        scale = 1 / total if total > 0 else 0.0
        alone = scale * ((own @ _blocks(damped, columns)) * own).sum((1, 2))
        return cls(weights, torch.linalg.inv(damped), columns, alone, scale)

    def prices(self, channels: Tensor) -> Tensor:
        """rho of each of these: tr W_c [(H^-1)_cc]^-1 W_c'. Shape: channel."""
        columns = self.columns[channels]
        own = self.weights[:, columns].movedim(1, 0)
        errors: Tensor = (torch.linalg.solve(_blocks(self.inverse, columns), own, left=False) * own).sum((1, 2))
        return self.scale * errors.clamp(min=0)

    def remove(self, channels: Tensor) -> None:
        """Take these away together; the others make up for them as well as they can."""
        gone = self.columns[channels].flatten()
        rows = torch.linalg.solve(self.inverse[gone][:, gone], self.inverse[gone])
        self.weights = self.weights - self.weights[:, gone] @ rows
        self.inverse = self.inverse - self.inverse[:, gone] @ rows


def _blocks(matrix: Tensor, columns: Tensor) -> Tensor:
    """The squares of each channel on the diagonal. Shape: (channel, place, place)."""
    return matrix[columns[:, :, None], columns[:, None, :]]


def elimination(readers: Sequence[Reader]) -> tuple[Tensor, Tensor]:
    """The channels of a group in the order in which they go, each the cheapest by then, the others making up for it;
    and what each adds to the error of its readers, as a share of what it would add without that (1 where that is
    nothing). Shapes: channel (long), channel, in that order."""
    alone = torch.stack([reader.alone for reader in readers]).sum(0)
    left = torch.arange(len(alone), device=alone.device)
    gone, shares = list[Tensor](), list[Tensor]()
    step = -(-len(alone) // ROUNDS)
    while len(left):
        prices = torch.stack([reader.prices(left) for reader in readers]).sum(0)
        order = prices.argsort(stable=True)
        cheapest = left[order[:step]]
        gone.append(cheapest)
        shares.append((prices[order[:step]] / alone[cheapest]).where(alone[cheapest] > 0, 1.0))
        for reader in readers:
            reader.remove(cheapest)
        left = left[order[step:].sort().values]
    return torch.cat(gone), torch.cat(shares)
