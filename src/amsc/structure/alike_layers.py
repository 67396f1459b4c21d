"""Layers that repeat: groups that are the same but for the number of their layer, and blocks that are whole layers."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from amsc.structure.names import enclosing, holder
from amsc.structure.structure import Block, ChannelGroup, Structure

__all__ = ["held", "stacks", "uniform", "whole_layers"]


def stacks(structure: Structure) -> tuple[tuple[str, ...], ...]:
    """The groups in the same place of repeated layers, such as `layers.0.mlp.up`, `layers.1.mlp.up`, ...: their names
    but for numbers between dots, their kind, and their size are the same. A group that is alone is left out."""
    alike: dict[tuple[object, ...], list[str]] = {}
    for group in structure.channels:
        alike.setdefault(_place(group), []).append(group.name)
    return tuple(tuple(names) for names in alike.values() if len(names) > 1)


def whole_layers(structure: Structure) -> tuple[tuple[Block, ...], ...]:
    """The blocks that are whole layers of a list of such (`layers.0`, `layers.1`, ...), list by list; a block in
    another is none."""
    names = {block.name for block in structure.blocks}
    lists: dict[str, list[Block]] = {}
    for block in structure.blocks:
        if block.name.rpartition(".")[2].isdigit() and names.isdisjoint(enclosing(block.name)[1:]):
            lists.setdefault(holder(block.name), []).append(block)
    return tuple(tuple(blocks) for blocks in lists.values() if len(blocks) > 1)


def uniform(structure: Structure) -> Structure:
    """`structure` for a cut that leaves alike layers alike: of groups that repeat (`stacks`) all stay where one must,
    and blocks go only as whole layers.

    That they keep the same number of channels is up to what chooses them (see `Rounding.ties`)."""
    reasons: dict[str, str] = {}
    for names in stacks(structure):
        kept = [group for name in names if not (group := structure.group(name)).removable]
        if kept and len(kept) < len(names):
            reasons |= dict.fromkeys(names, f"uniform: {kept[0].name} stays ({kept[0].reason})")
    layers = {block.name for blocks in whole_layers(structure) for block in blocks}
    return held(structure, reasons, [block.name for block in structure.blocks if block.name not in layers])


def held(structure: Structure, reasons: Mapping[str, str], blocks: Iterable[str]) -> Structure:
    """`structure` with these groups marked as staying, for these reasons, and without these blocks."""
    out = frozenset(blocks)
    return replace(
        structure,
        channels=tuple(
            replace(group, removable=False, reason=reasons[group.name])
            if group.removable and group.name in reasons
            else group
            for group in structure.channels
        ),
        blocks=tuple(block for block in structure.blocks if block.name not in out),
    )


def _place(group: ChannelGroup) -> tuple[object, ...]:
    """Where a group stands, whichever layer it is in: `head#2` for `layers.3.q_proj#2`, with kind and size."""
    name, _, number = group.name.partition("#")
    parts = tuple("*" if part.isdigit() else part for part in name.split("."))
    return (*parts, number, group.kind, group.size)
