"""Which group each item belongs to, and what the items of each group come to: the same bits at every call."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Membership"]


@dataclass(frozen=True, eq=False)
class Membership:
    """Items in groups: rows of tensors in leaves, leaves under roots. Make one with `Membership.of`.

    Attributes:
        group: the group of each item, the number of groups for one that is in none. Shape: item (long).
        order: the items that are in a group, by group and within a group in order. Shape: item in a group (long).
        lengths: number of items of each group. Shape: group (long).
    """

    group: Tensor
    order: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, group: Tensor, num_groups: int) -> "Membership":
        """From the group of each item; one that is below 0 or beyond the groups is in none. Shape: item (long)."""
        group = torch.where((group < 0) | (group >= num_groups), num_groups, group)
        order = torch.argsort(group, stable=True)
        lengths = torch.bincount(group, minlength=num_groups + 1)[:num_groups]
        return cls(group, order[: int(lengths.sum())], lengths)

    def to(self, device: torch.device) -> "Membership":
        """The same on `device`."""
        return Membership(self.group.to(device), self.order.to(device), self.lengths.to(device))

    def sums(self, values: Tensor) -> Tensor:
        """Sums over the items of each group. Shapes: item; the result: group.

        Each is added up in the order of its items, on a CPU and with CUDA alike: `index_add_` adds on a GPU in the
        order in which threads happen to come. Other devices have nothing else."""
        if not len(self.order):
            return values.new_zeros(len(self.lengths))
        if values.device.type not in ("cpu", "cuda"):
            return values.new_zeros(len(self.lengths) + 1).index_add_(0, self.group, values)[:-1]
        # unsafe: its checks would make the processor wait for the device
        return torch.segment_reduce(values[self.order], "sum", lengths=self.lengths, unsafe=True, initial=0)

    def maxima(self, values: Tensor) -> Tensor:
        """The largest item of each group, 0 where it has none above. Shapes: item; the result: group."""
        found = values.new_zeros(len(self.lengths) + 1)
        return found.scatter_reduce_(0, self.group, values, "amax")[:-1]

    def spread(self, values: Tensor, *, none: float) -> Tensor:
        """Its group's value for each item, `none` for those in no group. Shapes: group; the result: item."""
        return torch.cat([values, values.new_full((1,), none)])[self.group]
