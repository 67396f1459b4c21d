"""Layers that read a residual stream and add to it alone, x + layer(x): a block only in a module of its own."""

from collections.abc import Sequence

from amsc.structure.names import holder, is_in_any
from amsc.structure.parts import Block, ChannelGroup

__all__ = ["lone_layers", "lone_words"]


def lone_layers(channels: Sequence[ChannelGroup], blocks: Sequence[Block]) -> tuple[str, ...]:
    """The names of the layers outside of all blocks whose weight reads and makes the channels of one and the same
    residual stream. In a module of its own that returns x + layer(x) such a layer is a block."""
    names = [block.name for block in blocks]
    found: list[str] = []
    for stream in (group for group in channels if group.kind == "stream"):
        made = {member.parameter for member in stream.members if member.role == "out"}
        read = {member.parameter for member in stream.members if member.role == "in"}
        found += [holder(name) for name in sorted(made & read) if not is_in_any(name, names)]
    return tuple(found)


def lone_words(named: str) -> str:
    """What to do with them."""
    return (
        f"{named} adds to a stream what it reads from it, as in x + layer(x), and stays: such a layer is a block if it "
        "is in a module of its own whose forward returns x + layer(x)"
    )
