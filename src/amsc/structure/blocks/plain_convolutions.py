"""Convolutions of a plain network that keep the shape of their input: the identity is within their reach."""

from collections import Counter
from collections.abc import Iterable

from torch import nn

from amsc.structure.group_changes import group_with
from amsc.structure.names import enclosing, holder, is_inside
from amsc.structure.parts import Block, BlockKind, ChannelGroup
from amsc.structure.structure import Structure

__all__ = ["plain_convolutions"]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def plain_convolutions(
    structure: Structure, model: nn.Module, owning: set[str], found: Iterable[Block]
) -> tuple[Block, ...]:
    """The convolutions that return their input where their kernel is that of Dirac and their bias zero, as blocks.

    They have stride 1, as many output as input channels, one group, a kernel of more than one pixel and the padding
    that keeps the shape; run once, share nothing, lie in no other block, and read one group of channels and make
    another: neither is the stream of a residual network, and no submodule around them adds up such a stream.

    Args:
        structure: the network's, without blocks.
        model: the network.
        owning: names of the modules whose parameters nobody outside holds or reads.
        found: blocks of other kinds.
    """
    runs = Counter(cost.module for cost in structure.costs)
    around = {name for group in structure.channels if group.kind == "stream" for name in _holders_of_two(group)}
    around |= {block.name for block in found}
    return tuple(
        Block(name, (), 0, BlockKind.PLAIN)
        for name, module in model.named_modules()
        if _keeps_shape(module)
        and name in owning
        and runs[name] == 1
        and not any(is_inside(name, other) for other in around)
        and _joins_two_groups(structure, name)
    )


def _keeps_shape(module: nn.Module) -> bool:
    if type(module) not in CONVOLUTIONS or "weight" not in module._parameters:
        return False
    assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    sizes = list(zip(module.kernel_size, module.dilation, strict=True))
    same = [(size - 1) * dilation / 2 for size, dilation in sizes]
    return (
        module.in_channels == module.out_channels
        and module.groups == 1
        and set(module.stride) == {1}
        and max(module.kernel_size) > 1
        and all(size % 2 for size in module.kernel_size)
        and (module.padding == "same" or list(module.padding) == same)
        and not module._forward_hooks
        and not module._forward_pre_hooks
    )


def _joins_two_groups(structure: Structure, name: str) -> bool:
    """Whether it reads all of one group of channels and makes all of another."""
    read, made = (group_with(structure.channels, f"{name}.weight", axis) for axis in (1, 0))
    if read is None or made is None or read is made:
        return False
    num_channels = structure.shapes[f"{name}.weight"][0]
    return all(group.size == num_channels and group.kind == "filter" and not group.folds for group in (read, made))


def _holders_of_two(group: ChannelGroup) -> set[str]:
    """The submodules that hold two or more of the weights whose outputs are added up to this group."""
    makers = {member.parameter for member in group.members if member.role == "out"}
    around = Counter(parent for module in set(map(holder, makers)) for parent in enclosing(module))
    return {name for name, count in around.items() if count > 1}
