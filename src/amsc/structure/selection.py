"""What the user wants left alone, or touched alone: names and globs, applied to a structure."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from torch import nn

from amsc.errors import SettingsError
from amsc.structure.names import is_named, modules_of
from amsc.structure.parts import PRODUCERS
from amsc.structure.structure import Block, ChannelGroup, Structure, check_structure
from amsc.words.nearest import nearest

__all__ = ["minima", "select", "with_inexact", "without_frozen", "without_plain"]


def select(structure: Structure, *, keep: Sequence[str] = (), only: Sequence[str] = ()) -> Structure:
    """`structure` with what must not be touched marked so: groups as not removable (with the reason), blocks left out.

    The globs name groups, blocks, modules or parameters; `*` crosses dots. What `keep` names stays: a module keeps the
    groups that it produces (a module around them, too) and the blocks in it and around it; the name of a parameter
    keeps all groups with a share in it, also those it only reads. A dense layer stays with its channels. With `only`,
    whatever it does not name stays: a group must have that name or be produced inside of what is named, a block have
    that name or lie inside. `keep` wins over `only`. The structure of a network from which nothing is selected is
    `structure` itself.

        select(trace(model, inputs), keep=["stem", "layer4.2.*"])

    Raises:
        SettingsError: a glob matches nothing; the message says which name was meant.
        ModelError: `structure` is none.
    """
    check_structure(structure)
    for option, globs in (("keep", keep), ("only", only)):
        _check(structure, option, globs)
    if not keep and not only:
        return structure
    reasons = {group.name: _why_it_stays(structure, group, keep, only) for group in structure.channels}
    kept = [group for group in structure.channels if any(_is_kept(group, glob) for glob in keep)]
    named = [group for group in kept if any(fnmatchcase(group.name, glob) for glob in keep)]
    return replace(
        structure,
        channels=tuple(
            replace(group, removable=False, reason=reasons[group.name]) if reasons[group.name] else group
            for group in structure.channels
        ),
        blocks=tuple(block for block in structure.blocks if _may_go(block, keep, only, named, kept)),
    )


def with_inexact(structure: Structure) -> Structure:
    """`structure` with the groups offered whose channels are not the same function removed as zeroed, such as those
    that a LayerNorm runs over: before `cuttable` tries what is offered.

    No proof covers their removal: only what the network is worth afterwards tells what that did."""
    return replace(
        structure,
        channels=tuple(
            group if group.removable else replace(group, removable=True, reason="", unproven=group.reason)
            for group in structure.channels
        ),
    )


def minima(structure: Structure, minimum: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """(group, number) for each of the groups that `minimum`, texts such as "layer3.*=16", names as `keep` would.

    Raises:
        SettingsError: a text is not of this form, or a glob matches nothing.
    """
    found = []
    for text in minimum:
        glob, _, number = text.rpartition("=")
        if not glob or not number.isdecimal() or int(number) < 1:
            raise SettingsError(f"minimum: expected NAME=N, such as layer3.*=16, got {text!r}")
        _check(structure, "minimum", [glob])
        found += [(group.name, int(number)) for group in structure.channels if _is_kept(group, glob)]
    return tuple(found)


def without_plain(structure: Structure) -> Structure:
    """`structure` without those blocks whose origin is the identity: nothing but training towards it makes them
    ready to go."""
    return replace(structure, blocks=tuple(block for block in structure.blocks if not block.kind.is_dirac))


def without_frozen(structure: Structure, model: nn.Module) -> Structure:
    """`structure` with all kept that a frozen parameter of `model` (one without requires_grad) has a share in: the
    groups that it makes or reads, and the blocks that it is in. What training must not change, no penalty can empty."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    held = {group.name: [m.parameter for m in group.members if m.parameter in frozen] for group in structure.channels}
    return replace(
        structure,
        channels=tuple(
            replace(group, removable=False, reason=f"{held[group.name][0]} is frozen") if held[group.name] else group
            for group in structure.channels
        ),
        blocks=tuple(
            block
            for block in structure.blocks
            if frozen.isdisjoint(block.parameters) and not any(held.get(name) for name in block.channels)
        ),
    )


def _check(structure: Structure, option: str, globs: Sequence[str]) -> None:
    if isinstance(globs, str):
        raise SettingsError(f"{option}: expected a list of names or globs, not the text {globs!r}; write [{globs!r}]")
    known = _known(structure)
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in known):
            raise SettingsError(
                f"{option}: {glob!r} matches no group, block, module or parameter{nearest(glob, known)}"
            )


def _known(structure: Structure) -> tuple[str, ...]:
    """Every name that a glob may mean."""
    tensors = (*structure.shapes, *structure.unused)
    costly = (cost.module for cost in structure.costs if cost.module)
    named = (item.name for items in (structure.channels, structure.blocks) for item in items)
    return tuple(dict.fromkeys((*modules_of(tensors), *costly, *named, *tensors)))


def _why_it_stays(structure: Structure, group: ChannelGroup, keep: Sequence[str], only: Sequence[str]) -> str:
    """ "" if the group is free as far as the globs go."""
    for glob in keep:
        if _is_kept(group, glob):
            return f"keep = {glob!r} leaves it alone"
    if only and not any(_is_meant(group, glob) for glob in only):
        return f"it is not among only = {', '.join(map(repr, only))}"
    return ""


def _is_kept(group: ChannelGroup, glob: str) -> bool:
    """Whether the glob names the group, a parameter with a share in it, or a module around one that produces it."""
    if fnmatchcase(group.name, glob):
        return True
    return any(
        fnmatchcase(member.parameter, glob) or (member.role in PRODUCERS and is_named(member.parameter, glob))
        for member in group.members
    )


def _is_meant(group: ChannelGroup, glob: str) -> bool:
    """Whether the glob names the group, or all that produces it: weights, or what there is where it has none."""
    if fnmatchcase(group.name, glob):
        return True
    makers = [member.parameter for member in group.members if member.role == "out"]
    makers = makers or [member.parameter for member in group.members if member.role in PRODUCERS]
    return bool(makers) and all(is_named(name, glob) for name in makers)


def _may_go(
    block: Block,
    keep: Sequence[str],
    only: Sequence[str],
    named: Iterable[ChannelGroup],
    kept: Iterable[ChannelGroup],
) -> bool:
    """Whether a block may go when the groups `named` and others are `kept`."""
    parts = (block.name, *block.parameters)
    if any(is_named(part, glob) for part in parts for glob in keep):
        return False
    if any(_lies_in(group, block) for group in named) or any(group.name in block.channels for group in kept):
        return False
    return not only or any(is_named(block.name, g) or all(is_named(p, g) for p in block.parameters) for g in only)


def _lies_in(group: ChannelGroup, block: Block) -> bool:
    """Whether all that produces the group goes with the block."""
    inside = f"{block.name}."
    return all(member.parameter.startswith(inside) for member in group.members if member.role in PRODUCERS)
