"""What the channels of a group own of each parameter, bound to a model that is trained."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from amsc.structure.cutting import after_removal
from amsc.structure.structure import ChannelGroup, Structure
from amsc.training.removal.removed import Removal

__all__ = ["Going", "GroupParts", "Part", "going_of", "parts_of"]

Going = Mapping[str, Tensor]
"""For each group which of its channels are to go. Shape: channel, bool."""


@dataclass(frozen=True, eq=False)
class Part:
    """Position `positions[i]` of `axis` of a parameter belongs to channel `channels[i]` of a group, in this `role` (see
    `amsc.structure.Member`)."""

    parameter: nn.Parameter
    axis: int
    role: str
    is_scale: bool
    positions: Tensor
    channels: Tensor

    @property
    def is_weight(self) -> bool:
        """Whether it makes or reads the channels: no bias, no shift."""
        return self.is_scale or (self.role in ("out", "in") and self.parameter.ndim > 1)

    def values(self) -> Tensor:
        """What lies at each position. Shape: (position, entry); a copy without gradient."""
        return self.parameter.detach().movedim(self.axis, 0)[self.positions].reshape(len(self.positions), -1)

    def squares(self, size: int) -> Tensor:
        """The sum of squares of what each of `size` channels owns. Shape: channel."""
        rows = self.values().square().sum(1)
        return torch.zeros(size, dtype=rows.dtype, device=rows.device).index_add_(0, self.channels, rows)

    def multiply(self, factors: Tensor) -> None:
        """Multiply what each channel owns, in place; nothing happens to what is not trained. Shape: channel."""
        if self.parameter.requires_grad:
            rows = self.parameter.detach().movedim(self.axis, 0)  # a view: the parameter itself changes
            shape = (-1, *[1] * (rows.ndim - 1))
            rows[self.positions] = rows[self.positions] * factors[self.channels].to(rows).view(shape)


@dataclass(frozen=True, eq=False)
class GroupParts:
    """A group of `size` channels and its parts."""

    name: str
    size: int
    parts: tuple[Part, ...]

    @property
    def weights(self) -> tuple[Part, ...]:
        """The parts that make or read the channels, and their scales."""
        return tuple(part for part in self.parts if part.is_weight)

    @property
    def makers(self) -> tuple[Part, ...]:
        """The weights that make the channels."""
        return tuple(part for part in self.weights if part.role == "out")

    @property
    def scales(self) -> tuple[Part, ...]:
        """The scales of the normalisations behind them."""
        return tuple(part for part in self.parts if part.is_scale)


def parts_of(model: nn.Module, groups: Sequence[ChannelGroup]) -> tuple[GroupParts, ...]:
    """The parts of these groups of a network; buffers have none."""
    parameters = dict(model.named_parameters())
    return tuple(GroupParts(group.name, group.size, tuple(_parts(group, parameters))) for group in groups)


def _parts(group: ChannelGroup, parameters: Mapping[str, nn.Parameter]) -> Iterator[Part]:
    for member in group.members:
        if member.parameter in parameters:
            parameter = parameters[member.parameter]
            is_scale = member.role == "affine" and member.parameter.rpartition(".")[2] == "weight"
            pairs = [(at, channel) for channel, own in enumerate(member.indices) for at in own]
            positions, channels = torch.tensor(pairs, device=parameter.device).unbind(1)
            yield Part(parameter, member.axis, member.role, is_scale, positions, channels)


def going_of(structure: Structure, removal: Removal, groups: Sequence[GroupParts]) -> dict[str, Tensor]:
    """Which channels of these groups go with `removal`: those that it names, and all of a block that goes."""
    left = {group.name for group in after_removal(structure, {}, removal.blocks).channels}
    found = {}
    for group in groups:
        going = torch.full((group.size,), group.name not in left)
        going[list(removal.channels.get(group.name, ()))] = True
        found[group.name] = going
    return found
