"""Sizes and positions that a model's forward holds as constants do not follow a cut: found by trying."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from amsc.errors import CutError
from amsc.structure.values import Structure
from amsc.surgery.cut import cut
from amsc.surgery.plan import plan_cut

__all__ = ["cuttable"]


def cuttable(model: nn.Module, structure: Structure, example_inputs: Any) -> Structure:
    """`structure` with every group marked inexact, and without every block, whose removal does not work.

    One channel of every exact group and all blocks are removed at once on a copy, and then the blocks inside others;
    only if that fails is each group and block tried alone. What fails is for example followed by `x.view(-1, 400)`.

    Raises:
        CutError: groups and blocks can be cut alone but not together.
    """
    groups = [group.name for group in structure.channels if group.exact and group.size > 1]
    blocks = [block.name for block in structure.blocks]
    inner = [block.name for block in structure.blocks if block not in structure.outer_blocks]
    failures = (_failure(model, structure, example_inputs, *both) for both in ((groups, blocks), ([], inner)))
    if not any(failures):
        return structure
    reasons = {name: _failure(model, structure, example_inputs, [name], []) for name in groups}
    stuck = {name for name in blocks if _failure(model, structure, example_inputs, [], [name])}
    left = replace(
        structure,
        channels=tuple(
            replace(group, exact=False, reason=reason) if (reason := reasons.get(group.name)) else group
            for group in structure.channels
        ),
        blocks=tuple(block for block in structure.blocks if block.name not in stuck),
    )
    groups = [name for name in groups if not reasons[name]]
    blocks = [name for name in blocks if name not in stuck]
    if why := _failure(model, left, example_inputs, groups, blocks):
        raise CutError(f"each group and block can be cut alone, but not all together: {why}")
    return left


def _failure(model: nn.Module, structure: Structure, inputs: Any, groups: list[str], blocks: list[str]) -> str:
    """Why a channel of each of `groups` and all of `blocks` cannot be removed together; "" if they can."""
    left = {group.name for group in structure.after({}, blocks).channels}
    channels: Mapping[str, list[int]] = {name: [0] for name in groups if name in left}
    if not channels and not blocks:
        return ""
    try:
        cut(model, plan_cut(structure, channels=channels, blocks=blocks), inputs)
    except CutError as error:
        return str(error).split(". A size", 1)[0]
    return ""
