"""Structured elimination by second-order prices: what a layer's error becomes as channels go and others make up."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Layer", "Reader", "elimination"]

RIDGE = 1e-2
"""mu, as a share of the mean square of what a layer reads."""
ROUNDS = 64
"""A group goes in so many rounds, or one channel after the other if it is smaller."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer y = W u as it is: its `weights` W, the second moments H + mu I of what it reads (`moments`), and their
    `inverse`. `scale` makes errors shares of the mean square of y.

    Shapes: `weights` (output, read), `moments` and `inverse` (read, read)."""

    weights: Tensor
    moments: Tensor
    inverse: Tensor
    scale: float

    @classmethod
    def of(cls, weights: Tensor, moments: Tensor) -> "Layer":
        """The layer whose inputs have the second moments H. Shapes: (output, read), (read, read)."""
        ridge = RIDGE * float(moments.diagonal().mean()) or 1.0  # what is always zero can be had from nothing
        damped = moments + ridge * torch.eye(len(moments)).to(moments)
        total = float(((weights @ damped) * weights).sum())
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
        return cls(weights, damped, inverse, 1 / total if total > 0 else 0.0)


class Reader:
    """What a layer reads of a group of channels, as those that are gone left it: the rows and columns of W and of
    (H + mu I)^-1 that belong to the group say all of it. `alone` is what each channel adds to the error if nothing
    makes up for it, shape (channel).

    Args:
        columns: of each channel, shape (channel, place).
    """

    def __init__(self, layer: Layer, columns: Tensor) -> None:
        columns = columns.to(layer.weights.device)
        every, self._places, self._scale = columns.flatten(), columns.shape[1], layer.scale
        self._weights = layer.weights[:, every]
        self._inverse = layer.inverse[every[:, None], every]
        own = layer.weights[:, columns].movedim(1, 0)
        blocks = layer.moments[columns[:, :, None], columns[:, None, :]]
        self.alone = layer.scale * ((own @ blocks) * own).sum((1, 2))

    def prices(self) -> Tensor:
        """rho of each channel that is left: tr W_c [(H^-1)_cc]^-1 W_c'. Shape: channel."""
        places = self._places
        own = self._weights.unflatten(1, (-1, places)).movedim(1, 0)
        blocks = self._inverse.unflatten(1, (-1, places)).unflatten(0, (-1, places)).diagonal(dim1=0, dim2=2)
        errors: Tensor = (torch.linalg.solve(blocks.movedim(2, 0), own, left=False) * own).sum((1, 2))
        return self._scale * errors.clamp(min=0)

    def remove(self, gone: Tensor, left: Tensor) -> None:
        """Take the channels `gone` away together; those `left` make up for them as well as they can. Both are numbers
        among those that were left before."""
        gone, left = self._columns(gone), self._columns(left)
        across = self._inverse[left[:, None], gone]
        rows = torch.linalg.solve(self._inverse[gone[:, None], gone], across.T)
        self._weights = torch.addmm(self._weights[:, left], self._weights[:, gone], rows, alpha=-1)
        self._inverse = torch.addmm(self._inverse[left[:, None], left], across, rows, alpha=-1)

    def _columns(self, channels: Tensor) -> Tensor:
        return (channels[:, None] * self._places + torch.arange(self._places).to(channels)).flatten()


def elimination(readers: Sequence[Reader]) -> tuple[Tensor, Tensor]:
    """The channels of a group in the order in which they go, each the cheapest by then, the others making up for it;
    and what each adds to the error of its readers, as a share of what it would add without that (1 where that is
    nothing). Shapes: channel (long), channel, in that order."""
    alone = torch.stack([reader.alone for reader in readers]).sum(0)
    left = torch.arange(len(alone), device=alone.device)
    gone, shares = list[Tensor](), list[Tensor]()
    step = -(-len(alone) // ROUNDS)
    while len(left):
        prices = torch.stack([reader.prices() for reader in readers]).sum(0)
        order = prices.argsort(stable=True)
        first, rest = order[:step], order[step:].sort().values
        gone.append(left[first])
        shares.append((prices[first] / alone[left[first]]).where(alone[left[first]] > 0, 1.0))
        for reader in readers:
            reader.remove(first, rest)
        left = left[rest]
    return torch.cat(gone), torch.cat(shares)
