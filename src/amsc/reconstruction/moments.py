"""Second moments of what a consumer reads and of what its output lacks, summed batch by batch."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["Moments"]

MOST_NUMBERS = 2**23
"""Of the rows that are multiplied at once."""


@dataclass(eq=False)
class Moments:
    """For each group of a consumer, over `count` rows u of what it reads and r of what its output lacks:

    `inputs` sum u u', shape (group, read, read); `products` sum r u', shape (group, output, read); `residuals` sum r^2,
    shape (group, output). In float64."""

    count: int = 0
    inputs: Tensor = field(default_factory=lambda: torch.zeros(()))
    products: Tensor = field(default_factory=lambda: torch.zeros(()))
    residuals: Tensor = field(default_factory=lambda: torch.zeros(()))

    def add(self, read: Tensor, lacking: Tensor) -> None:
        """More rows. Shapes: (group, row, read) and (group, row, output)."""
        if not self.count:
            groups, _, size = read.shape
            outputs = lacking.shape[2]
            self.inputs = read.new_zeros((groups, size, size), dtype=torch.float64)
            self.products = read.new_zeros((groups, outputs, size), dtype=torch.float64)
            self.residuals = read.new_zeros((groups, outputs), dtype=torch.float64)
        self.count += read.shape[1]
        step = max(1, MOST_NUMBERS // max(1, read.shape[0] * read.shape[2]))
        for u, r in zip(read.split(step, dim=1), lacking.split(step, dim=1), strict=True):
            u, r = u.double(), r.double()
            self.inputs.baddbmm_(u.mT, u)
            self.products.baddbmm_(r.mT, u)
            self.residuals.add_(r.square().sum(1))
