"""Second moments of what a consumer reads and of what its output lacks, summed batch by batch."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from amsc.parallel import summed

__all__ = ["Moments", "exact"]


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
        """More rows, in float64. Shapes: (group, row, read) and (group, row, output)."""
        if not self.count:
            groups, _, size = read.shape
            outputs = lacking.shape[2]
            self.inputs = read.new_zeros((groups, size, size))
            self.products = read.new_zeros((groups, outputs, size))
            self.residuals = read.new_zeros((groups, outputs))
        self.count += read.shape[1]
        self.inputs.baddbmm_(read.mT, read)
        self.products.baddbmm_(lacking.mT, read)
        self.residuals.add_(lacking.square().sum(1))

    def pool(self) -> None:
        """Take in the rows of all processes."""
        count, self.inputs, self.products, self.residuals = summed(
            [torch.tensor(self.count, device=self.inputs.device), self.inputs, self.products, self.residuals]
        )
        self.count = int(count)


def exact(tensor: Tensor) -> Tensor:
    """The same in float64, where it is if that device has it, else on the CPU."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()
