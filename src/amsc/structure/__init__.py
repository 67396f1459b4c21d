"""Which axes of a network live and die together, and which blocks can go: found by running it on labels."""

from amsc.structure.alike_layers import held, stacks, uniform, whole_layers
from amsc.structure.cost_terms import byte_costs, parameter_costs, time_features
from amsc.structure.from_model import trace
from amsc.structure.rounding import LIKED, Rounding, round_channels
from amsc.structure.selection import minima, select, with_inexact, without_frozen, without_plain
from amsc.structure.structure import (
    Block,
    BlockCall,
    ChannelGroup,
    LayerCost,
    Limit,
    Member,
    OutputLeaf,
    Pin,
    StoredSize,
    Structure,
)

__all__ = [
    "LIKED",
    "Block",
    "BlockCall",
    "ChannelGroup",
    "LayerCost",
    "Limit",
    "Member",
    "OutputLeaf",
    "Pin",
    "Rounding",
    "StoredSize",
    "Structure",
    "byte_costs",
    "held",
    "minima",
    "parameter_costs",
    "round_channels",
    "select",
    "stacks",
    "time_features",
    "trace",
    "uniform",
    "whole_layers",
    "with_inexact",
    "without_frozen",
    "without_plain",
]
