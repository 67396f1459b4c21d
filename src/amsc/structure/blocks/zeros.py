"""Zeros that a branch leaves: as wide as what reads them, where that is not as wide as what the branch reads."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from amsc.structure.grouping.layer_costs import AxisOwners
from amsc.structure.labels.combine import Layers
from amsc.structure.labels.ledger import varying_axes
from amsc.structure.names import is_in_any, is_inside
from amsc.structure.parts import Block, OutputLeaf

__all__ = ["Zeros", "with_own_widths"]


@dataclass(frozen=True)
class Zeros:
    """Labels of a tensor in whose place zeros are left, and of the argument of which they take their shape."""

    made: Layers
    argument: Layers


def with_own_widths(block: Block, zeros: Mapping[int, Zeros], owners: AxisOwners, blocks: Collection[str]) -> Block:
    """The block with zeros that lose what goes from the channels it makes, where other channels go from the argument
    whose shape they have.

    Args:
        block: as it was found.
        zeros: the labels of both, by their place in the output.
        owners: the axes of parameters that lose channels.
        blocks: the names of all blocks; an axis outside them tells the width, so that it is still told when they go.
    """
    if block.call is None:
        return block
    leaves = tuple(
        _with_own_width(block.name, leaf, zeros[place], owners, blocks) if place in zeros else leaf
        for place, leaf in enumerate(block.call.leaves)
    )
    return replace(block, call=replace(block.call, leaves=leaves))


def _with_own_width(
    name: str, leaf: OutputLeaf, zeros: Zeros, owners: AxisOwners, blocks: Collection[str]
) -> OutputLeaf:
    """The leaf itself where the same goes from both, or it cannot be told what goes."""
    made, argument = (_along_one_axis(layers) for layers in (zeros.made, zeros.argument))
    if made is None or (argument is not None and argument[0] == made[0] and owners.alike(argument[1], made[1])):
        return leaf
    axis, labels = made
    found = [one for one in owners.in_proportion(labels) if len(one.components) == len(labels)]
    if not found:
        return leaf
    owner = min(found, key=lambda one: (is_inside(one.parameter, name), is_in_any(one.parameter, blocks)))
    return replace(leaf, axis=axis, size=len(labels), parameter=owner.parameter, parameter_axis=owner.axis)


def _along_one_axis(layers: Layers) -> tuple[int, np.ndarray] | None:
    """The only axis along which labels change, and those along it."""
    axes = {axis for layer in layers for axis in varying_axes(layer)}
    if len(layers) != 1 or len(axes) != 1:
        return None
    axis = axes.pop()
    return axis, layers[0].abs().movedim(axis, 0).flatten(1)[:, 0].numpy()
