"""What a cut will do, as plain data: which positions of which tensors go, and which blocks."""

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from amsc.borrowing import InputSpec
from amsc.errors import CutError
from amsc.structure.costing import predicted_macs, predicted_parameters
from amsc.structure.cutting import (
    channels_gone,
    folded_layers,
    keeps_shape,
    removed_positions,
    stand_in_calls,
    with_new_biases,
)
from amsc.structure.names import is_in_any
from amsc.structure.parts import PRODUCERS
from amsc.structure.stored_sizes import sizes_after
from amsc.structure.structure import BlockCall, ChannelGroup, Structure, check_structure
from amsc.words.alike import name_together
from amsc.words.amounts import ranges
from amsc.words.page import Page, first_rows
from amsc.words.shown import Shown

__all__ = ["AxisCut", "CutPlan", "NewSize", "outermost", "plan_cut", "proven_part", "uncosted_plan"]

MOST_ROWS, MOST_NAMES = 12, 8
"""Of what a plan prints."""


@dataclass(frozen=True)
class AxisCut:
    """The positions `removed` (sorted) go from `axis` of `parameter` (or buffer), which has `size` of them.

    `zeroed`: masking sets these positions to zero; otherwise (inputs of a layer, running statistics) a
    masked network keeps them, because what they read or describe is zero already."""

    parameter: str
    axis: int
    size: int
    removed: tuple[int, ...]
    zeroed: bool

    @property
    def kept(self) -> tuple[int, ...]:
        """The positions that stay, in order."""
        gone = frozenset(self.removed)
        return tuple(position for position in range(self.size) if position not in gone)


@dataclass(frozen=True)
class NewSize:
    """The whole number at `place` in `module` (see `StoredSize`) becomes `number`."""

    module: str
    place: tuple[Any, ...]
    number: int


@dataclass(frozen=True, repr=False)
class CutPlan(Shown):
    """All that is needed to cut a network, without the network; saves to JSON.

    `channels` (group name -> channel indices) and `blocks` say what was asked for, `cuts` and
    `block_parameters` what it means for the tensors; `block_calls` what stands in for those blocks that
    `nn.Identity` cannot replace, `plain` those that are convolutions, whose origin is the Dirac kernel. `folds` are the
    layers that read removed channels as constants: these move into their biases, which are made where there are none
    (and may be among the `cuts`). `sizes` are what numbers in modules become, beside those that are
    known by their names or values. `unproven` says of those of the groups whose channels are not the same function
    removed as zeroed why they are not. `macs` (for the inputs as specified) and `parameters` are the prediction for the
    cut network."""

    inputs: InputSpec
    channels: Mapping[str, tuple[int, ...]]
    blocks: tuple[str, ...]
    block_parameters: tuple[str, ...]
    cuts: tuple[AxisCut, ...]
    macs: int
    parameters: int
    block_calls: Mapping[str, BlockCall] = field(default_factory=dict)
    folds: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()
    sizes: tuple[NewSize, ...] = ()
    unproven: Mapping[str, str] = field(default_factory=dict)

    @property
    def positions(self) -> dict[tuple[str, int], tuple[int, ...]]:
        """The positions that go, by parameter and axis."""
        return {(cut.parameter, cut.axis): cut.removed for cut in self.cuts}

    @property
    def changes_nothing(self) -> bool:
        """Whether the cut network would be the old one."""
        return not self.cuts and not self.blocks

    def page(self) -> Page:
        """What goes, and from where."""
        rows = [(name, str(len(indices)), ranges(indices)) for name, indices in self.channels.items()]
        return Page(
            f"CutPlan: {self.in_a_line()}",
            (
                f"blocks: {name_together(self.blocks, most=MOST_NAMES) or 'none'}",
                *([f"constants move into the biases of {name_together(self.folds)}"] if self.folds else []),
                *([f"not covered by any proof: {name_together(tuple(self.unproven))}"] if self.unproven else []),
            ),
            first_rows(("channels of", ">number", "which"), rows, MOST_ROWS, "groups: plan.channels"),
            "more: plan.cuts (tensor by tensor), plan.to_json()",
        )

    def in_a_line(self) -> str:
        """How much goes and how much is left."""
        num_channels = sum(len(indices) for indices in self.channels.values())
        return (
            f"{num_channels} channels of {len(self.channels)} groups and {len(self.blocks)} blocks go;"
            f" {self.macs:,} macs and {self.parameters:,} parameters are left"
        )


def plan_cut(
    structure: Structure,
    *,
    channels: Mapping[str, Iterable[int]] | None = None,
    blocks: Iterable[str] = (),
    allow_inexact: bool = False,
) -> CutPlan:
    """The plan that removes `channels` (group name -> indices) and `blocks` from the traced network.

    The channels that only a removed block makes (those of a dense layer) go with it. What a removed plain convolution
    would have read goes from what it makes as well, unless `channels` names others there.

    With `allow_inexact`, groups whose removal is not the same function as their zeroing are accepted too, and those
    that a structure offers (see `with_inexact`) always are. `cut` refuses such a plan, since there is no proof of it;
    `apply_plan` carries it out unverified.

    Raises:
        CutError: a group, index or block does not exist, a group may not go, a tensor would be left empty, or a plain
            convolution goes while other channels are removed before it than behind it.
        ModelError: `structure` is none.
    """
    check_structure(structure)
    if channels is not None and not isinstance(channels, Mapping):
        raise CutError(
            f"channels must be a dict of group names and indices, such as {{'conv1': [0, 3]}}, not a "
            f"{type(channels).__name__}"
        )
    plan = uncosted_plan(structure, channels or {}, blocks, allow_inexact=allow_inexact)
    return replace(
        plan,
        macs=predicted_macs(structure, plan.channels, plan.blocks),
        parameters=predicted_parameters(structure, plan.channels, plan.blocks),
    )


def uncosted_plan(
    structure: Structure,
    channels: Mapping[str, Iterable[int]],
    blocks: Iterable[str],
    *,
    allow_inexact: bool = False,
) -> CutPlan:
    """`plan_cut`, but what the network costs afterwards is not predicted: 0 stands for it."""
    blocks = _checked_blocks(structure, blocks)
    chosen = {
        name: _checked_channels(structure.group(name), indices, allow_inexact)
        for name, indices in sorted(channels.items())
    }
    chosen = {name: indices for name, indices in chosen.items() if indices}
    plain = tuple(name for name in blocks if structure.block(name).kind.is_dirac)
    _check_plain(structure, plain, chosen, blocks)
    folds = folded_layers(structure, chosen, blocks)
    structure = with_new_biases(structure, folds)
    return CutPlan(
        inputs=structure.inputs,
        channels=chosen,
        blocks=blocks,
        block_parameters=tuple(sorted({p for block in blocks for p in structure.block(block).parameters})),
        cuts=_axis_cuts(structure, chosen, blocks),
        macs=0,
        parameters=0,
        block_calls=stand_in_calls(structure, chosen, blocks),
        folds=folds,
        plain=plain,
        sizes=_new_sizes(structure, chosen, blocks),
        unproven=_unproven(structure.group(name) for name in chosen),
    )


def _unproven(groups: Iterable[ChannelGroup]) -> dict[str, str]:
    return {group.name: group.unproven or group.reason for group in groups if not group.exact}


def proven_part(structure: Structure, plan: CutPlan) -> CutPlan:
    """What of a plan for the traced network a verification can cover: the blocks, and the channels of exact groups."""
    if not plan.unproven:
        return plan
    channels = {name: indices for name, indices in plan.channels.items() if name not in plan.unproven}
    return plan_cut(structure, channels=channels, blocks=plan.blocks)


def outermost(blocks: Iterable[str]) -> tuple[str, ...]:
    """The blocks that lie in no other of the blocks, sorted, each once."""
    names = sorted(set(blocks))
    return tuple(name for name in names if not is_in_any(name, (other for other in names if other != name)))


def _new_sizes(
    structure: Structure, channels: Mapping[str, tuple[int, ...]], blocks: tuple[str, ...]
) -> tuple[NewSize, ...]:
    positions = removed_positions(structure, channels, blocks) if structure.sizes else {}
    sizes = sizes_after(structure.sizes, structure.channels, structure.shapes, positions)
    return tuple(NewSize(size.module, size.place, size.number) for size in sizes)


def _checked_blocks(structure: Structure, blocks: Iterable[str]) -> tuple[str, ...]:
    if isinstance(blocks, str):
        raise CutError(f"blocks must be a list of names, not the string {blocks!r}; write [{blocks!r}]")
    return outermost(structure.block(name).name for name in blocks)


def _checked_channels(group: ChannelGroup, indices: Iterable[int], allow_inexact: bool) -> tuple[int, ...]:
    try:
        chosen = sorted({operator.index(index) for index in indices})
    except TypeError as error:
        raise CutError(f"the channels of group {group.name!r} must be a list of integers: {error}") from error
    outside = [index for index in chosen if not 0 <= index < group.size]
    if outside:
        raise CutError(f"group {group.name!r} has channels 0 to {group.size - 1}; {outside[0]} is not one of them")
    if chosen and not group.removable and not allow_inexact:
        raise CutError(
            f"group {group.name!r} is not exact ({group.reason or 'no reason given'}): removing its channels is not the"
            " same function as zeroing them; leave it out, or pass allow_inexact=True and check the accuracy"
        )
    return tuple(chosen)


def _check_plain(
    structure: Structure, plain: tuple[str, ...], channels: Mapping[str, tuple[int, ...]], blocks: tuple[str, ...]
) -> None:
    others = [name for name in blocks if name not in plain]
    positions = removed_positions(structure, channels_gone(structure, channels, plain), others)
    for name in plain:
        if not keeps_shape(name, positions):
            read, made = (len(positions.get((f"{name}.weight", axis), ())) for axis in (1, 0))
            raise CutError(
                f"the convolution {name!r} can only go if the same channels are removed from what it reads and from"
                f" what it makes, here {read} and {made}; remove the same from both groups, or cut twice: first the"
                " blocks, then, traced anew, the channels"
            )


def _axis_cuts(
    structure: Structure, channels: Mapping[str, tuple[int, ...]], blocks: tuple[str, ...]
) -> tuple[AxisCut, ...]:
    channels = channels_gone(structure, channels, blocks)
    zeroed = _zeroed_axes(structure, channels)
    cuts = []
    for (name, axis), positions in sorted(removed_positions(structure, channels, blocks).items()):
        if is_in_any(name, blocks) or not positions:  # buffers of a removed block go with it
            continue
        size = structure.shapes[name][axis]
        if len(positions) == size:
            raise CutError(
                f"removing all {size} positions of axis {axis} of {name!r} would leave it empty"
                f" ({_groups_on(structure, channels, name, axis)}); keep at least one channel,"
                " or remove the block that contains it"
            )
        cuts.append(AxisCut(name, axis, size, tuple(positions), (name, axis) in zeroed))
    return tuple(cuts)


def _zeroed_axes(structure: Structure, channels: Iterable[str]) -> set[tuple[str, int]]:
    members = (member for name in channels for member in structure.group(name).members)
    return {(member.parameter, member.axis) for member in members if member.role in PRODUCERS}


def _groups_on(structure: Structure, channels: Iterable[str], parameter: str, axis: int) -> str:
    owners = [
        name
        for name in channels
        if any((m.parameter, m.axis) == (parameter, axis) for m in structure.group(name).members)
    ]
    return f"group {', '.join(owners)}"
