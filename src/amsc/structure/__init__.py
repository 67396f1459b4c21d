"""Which axes of a network live and die together, and which blocks can go: found by running it on labels."""

from amsc.structure.rounding import Rounding, round_channels
from amsc.structure.selection import select
from amsc.structure.trace import trace
from amsc.structure.values import Block, BlockCall, ChannelGroup, LayerCost, Member, OutputLeaf, Pin, Structure

__all__ = [
    "Block",
    "BlockCall",
    "ChannelGroup",
    "LayerCost",
    "Member",
    "OutputLeaf",
    "Pin",
    "Rounding",
    "Structure",
    "round_channels",
    "select",
    "trace",
]
