"""What has been removed, counted in the dense network's own numbers."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn

from amsc.records import ReconstructionRecord
from amsc.structure.cutting import after_removal
from amsc.structure.names import is_in_any
from amsc.structure.structure import PRODUCERS, ChannelGroup, Structure

__all__ = ["Leaf", "Removal", "Repair", "Shrink", "Shrunk", "channel_map", "compose_removals"]

Leaf = tuple[str, int]
"""A removable channel: the name of its group, and its index there."""


@dataclass(frozen=True)
class Removal:
    """Blocks and channels (group name -> sorted indices) that are gone."""

    blocks: tuple[str, ...] = ()
    channels: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.blocks or self.channels)


@dataclass(frozen=True)
class Shrunk:
    """A cut network: the new model, its structure, what slices tensors named after parameters (momentum, reference
    weights) in the same way, the relative error that verifying the cut gave, and what was done to give back its
    cost."""

    model: nn.Module
    structure: Structure
    slice_tensors: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    error: float
    repaired: ReconstructionRecord | None = None


class Shrink(Protocol):
    """Cuts a copy of a model; given to training from above, since training itself never changes shapes."""

    def __call__(self, model: nn.Module, structure: Structure, removal: Removal) -> Shrunk:
        """`model` without what `removal` names (in the numbers of `structure`); it may be empty."""


class Repair(Protocol):
    """Gives back what a cut cost; given to training from above, as `Shrink` is."""

    def __call__(
        self,
        cut: Shrunk,
        before: nn.Module,
        structure: Structure,
        removal: Removal,
        examples: int,
        *,
        layers: int | None = None,
    ) -> Shrunk:
        """The network `cut` from `before` (whose structure this is), brought as near to it as these examples allow; at
        most so many `layers` of it, the first behind what was cut."""


def compose_removals(dense: Structure, first: Removal, second: Removal) -> Removal:
    """What is gone from the dense network after `first` and then `second`, whose indices count what `first` left.

    Channels of groups that lie wholly in a removed block are not listed: they go with it."""
    blocks = tuple(block.name for block in dense.blocks if block.name in {*first.blocks, *second.blocks})
    left = {group.name: group.size for group in after_removal(dense, {}, blocks).channels}
    left |= {group.name: group.size for group in dense.channels if _are_gone_already(group, first, second)}
    channels = {}
    for name, size in left.items():
        gone = set(first.channels.get(name, ()))
        survivors = [index for index in range(size) if index not in gone]
        gone |= {survivors[index] for index in second.channels.get(name, ())}
        if gone:
            channels[name] = tuple(sorted(gone))
    return Removal(blocks, channels)


def _are_gone_already(group: ChannelGroup, first: Removal, second: Removal) -> bool:
    """Whether `first` took channels that others read of a group of which `second` takes all that makes it."""
    is_inside = {m.parameter: is_in_any(m.parameter, second.blocks) for m in group.members}
    makers = [m.parameter for m in group.members if m.role in PRODUCERS]
    return group.name in first.channels and all(map(is_inside.get, makers)) and not all(is_inside.values())


def channel_map(leaves: Iterable[Leaf]) -> dict[str, tuple[int, ...]]:
    """Group name -> sorted indices, for all `leaves`."""
    groups: dict[str, list[int]] = {}
    for name, index in leaves:
        groups.setdefault(name, []).append(index)
    return {name: tuple(sorted(indices)) for name, indices in groups.items()}
