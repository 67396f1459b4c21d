"""What tracing a network yields: channel groups, blocks, costs and pins, as frozen plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from amsc.borrowing import InputSpec
from amsc.errors import CutError, ModelError
from amsc.structure.lone_layers import lone_layers, lone_words
from amsc.structure.names import enclosing, holder, matching, modules_of
from amsc.structure.parts import (
    PRODUCERS,
    Block,
    BlockCall,
    ChannelGroup,
    LayerCost,
    Limit,
    Member,
    OutputLeaf,
    Pin,
    StoredSize,
)
from amsc.words.nearest import nearest
from amsc.words.page import Page
from amsc.words.shown import Shown

__all__ = [
    "PRODUCERS",
    "Block",
    "BlockCall",
    "ChannelGroup",
    "LayerCost",
    "Limit",
    "Member",
    "OutputLeaf",
    "Pin",
    "StoredSize",
    "Structure",
    "check_structure",
]


@dataclass(frozen=True, repr=False)
class Structure(Shown):
    """Which axes of a network live and die together, which blocks can go, what everything costs.

    `shapes` holds every parameter and buffer the forward pass used (first names only, buffers marked in `buffers`);
    `unused` those it did not touch. `limits` say what `cost` is; without any it is the multiply-adds. `sizes`
    are numbers that modules keep and that were found, by trying, to follow a cut, or not to. `stuck` says of submodules
    that looked like blocks why a trial could not remove them."""

    inputs: InputSpec
    shapes: Mapping[str, tuple[int, ...]]
    buffers: tuple[str, ...]
    channels: tuple[ChannelGroup, ...]
    blocks: tuple[Block, ...]
    costs: tuple[LayerCost, ...]
    pins: tuple[Pin, ...]
    unused: tuple[str, ...] = field(default=())
    limits: tuple[Limit, ...] = field(default=())
    sizes: tuple[StoredSize, ...] = field(default=())
    stuck: Mapping[str, str] = field(default_factory=dict)

    def page(self) -> Page:
        """What can go by kind, the blocks, and why the rest stays."""
        from amsc.structure.words import structure_page  # which reads structures

        return structure_page(self)

    def in_a_line(self) -> str:
        """How large it is and how much of it can go."""
        from amsc.structure.words import structure_line

        return structure_line(self)

    def group(self, name: str) -> ChannelGroup:
        """The channel group of that name; CutError names the nearest one if there is none."""
        return _find(self.channels, name, "channel group")

    def block(self, name: str) -> Block:
        """The removable block of that name; CutError names the nearest one if there is none."""
        return _find(self.blocks, name, "block")

    @property
    def outer_blocks(self) -> tuple[Block, ...]:
        """The blocks that lie in no other block, so that no two of them share a parameter."""
        names = {block.name for block in self.blocks}
        return tuple(block for block in self.blocks if names.isdisjoint(enclosing(block.name)))

    def explain(self, name: str) -> str:
        """Who shares each axis of the parameter or buffer `name`, or why it stays.

        `name` may also be a module or a glob such as "layer3.*.conv1": then all parameters and buffers that it means.

        Raises:
            CutError: the network has nothing of that name.
        """
        known = (*self.shapes, *(unused for unused in self.unused if unused not in self.shapes))
        if name not in known and (meant := matching(known, name)):
            return "\n".join(self._explain_one(each) for each in meant)
        if name not in known:
            raise CutError(f"no parameter, buffer or module {name!r}{nearest(name, (*known, *modules_of(known)))}")
        return self._explain_one(name)

    def _explain_one(self, name: str) -> str:
        if name in self.unused:
            return f"{name}: not used by the forward pass on the example inputs; left as it is"
        lines = [f"{name} {self.shapes[name]}"]
        for axis, size in enumerate(self.shapes[name]):
            lines += [f"  axis {axis} ({size}): {text}" for text in self._explain_axis(name, axis)]
        if len(self.shapes[name]) > 1 and holder(name) in lone_layers(self.channels, self.blocks):
            lines.append(f"  as a block: {lone_words(holder(name))}")
        return "\n".join(lines)

    def _explain_axis(self, name: str, axis: int) -> list[str]:
        texts = []
        for group in self.channels:
            roles = [m.role for m in group.members if (m.parameter, m.axis) == (name, axis)]
            if roles:
                others = [f"{m.parameter}[{m.axis}]" for m in group.members if (m.parameter, m.axis) != (name, axis)]
                note = "" if group.exact else f"; not exact: {group.reason or group.unproven}"
                if group.exact and group.folds:
                    note = f"; a constant when zeroed, which moves into the bias of {', '.join(group.folds)}"
                texts.append(
                    f"{group.size} channels of group {group.name} ({group.kind}, {roles[0]}), "
                    f"shared with {', '.join(others) or 'nothing'}{note}"
                )
        pins = [pin for pin in self.pins if (pin.parameter, pin.axis) == (name, axis)]
        stay = [f"{pin.count} stay: {pin.reason}" + (f" ({pin.source})" if pin.source else "") for pin in pins]
        return texts + stay or ["not removable: no channel runs along it"]


def check_structure(value: Any) -> None:
    """Refuse what is no structure, such as the network itself.

    Raises:
        ModelError: it is none.
    """
    if not isinstance(value, Structure):
        raise ModelError(
            f"expected the structure that amsc.trace(model, example_inputs) gives, got {type(value).__name__}"
        )


Named = TypeVar("Named", ChannelGroup, Block)


def _find(items: tuple[Named, ...], name: str, what: str) -> Named:
    for item in items:
        if item.name == name:
            return item
    raise CutError(f"no {what} {name!r}{nearest(name, [item.name for item in items])}")
