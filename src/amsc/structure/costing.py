"""What a network costs after a removal, predicted exactly, and what removing a channel or a block saves."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from math import ceil, prod

from amsc.structure.cutting import costs_outside, kept_shapes
from amsc.structure.parts import LayerCost
from amsc.structure.structure import Structure

__all__ = [
    "MET",
    "channel_macs",
    "costs_after",
    "counted_costs",
    "predicted_cost",
    "predicted_macs",
    "predicted_parameters",
    "saved_by_block",
    "saved_by_channel",
]

MET = 10**9
"""The cost of a network that meets its limits to the last bit: billionths of the limit."""


def predicted_macs(
    structure: Structure, channels: Mapping[str, Iterable[int]] | None = None, blocks: Iterable[str] = ()
) -> int:
    """Multiply-adds for the example inputs after removing these channels and blocks; exact."""
    return int(costs_after(structure, structure.costs, channels, blocks))


def costs_after(
    structure: Structure,
    costs: Iterable[LayerCost],
    channels: Mapping[str, Iterable[int]] | None = None,
    blocks: Iterable[str] = (),
) -> float:
    """The sum of `costs` after removing these channels and blocks."""
    blocks = tuple(blocks)
    shapes = kept_shapes(structure, channels, blocks)
    return sum(cost.at(shapes) for cost in costs_outside(costs, blocks))


def predicted_cost(
    structure: Structure, channels: Mapping[str, Iterable[int]] | None = None, blocks: Iterable[str] = ()
) -> int:
    """What counts towards the target after removing these channels and blocks: multiply-adds, or where there are
    `limits`, the largest share of a limit that is used, in billionths."""
    blocks = tuple(blocks)
    if not structure.limits:
        return predicted_macs(structure, channels, blocks)
    shapes = kept_shapes(structure, channels, blocks)
    sums = (
        sum(cost.at(shapes) for cost in costs_outside(limit.costs, blocks)) / limit.amount for limit in structure.limits
    )
    return ceil(MET * max(sums))


def predicted_parameters(
    structure: Structure, channels: Mapping[str, Iterable[int]] | None = None, blocks: Iterable[str] = ()
) -> int:
    """Number of parameters left (buffers not counted, unused parameters counted)."""
    shapes = kept_shapes(structure, channels, blocks)
    return sum(prod(shape) for name, shape in shapes.items() if name not in structure.buffers)


def channel_macs(structure: Structure, name: str) -> int:
    """Multiply-adds saved by removing one channel of the group `name` from the network as it is."""
    return int(saved_by_channel(structure, name, structure.costs))


def counted_costs(structure: Structure) -> tuple[LayerCost, ...]:
    """What falls, to first order, as `cost` does: of several limits those that are exceeded count, each by how far;
    if none is, the tightest."""
    if not structure.limits:
        return structure.costs
    shares = [limit.sum(structure.shapes) / limit.amount for limit in structure.limits]
    excess = [max(0.0, share - 1) for share in shares]
    if not any(excess):
        excess = [float(share == max(shares)) for share in shares]
    counted: dict[tuple[str, tuple[tuple[str, int], ...]], float] = defaultdict(float)
    for limit, over in zip(structure.limits, excess, strict=True):
        for cost in limit.costs if over else ():
            counted[cost.module, cost.along] += MET * over / sum(excess) / limit.amount * cost.positions
    return tuple(LayerCost(module, positions, along) for (module, along), positions in counted.items())


def saved_by_channel(structure: Structure, name: str, costs: Iterable[LayerCost]) -> float:
    """How much of `costs` removing one channel of the group `name` from the network as it is saves."""
    width = {(m.parameter, m.axis): len(m.indices[0]) for m in structure.group(name).members}
    saved: float = 0
    for cost in costs:
        if any(key in width for key in cost.along) and all(name in structure.shapes for name, _ in cost.along):
            left = prod(structure.shapes[name][axis] - width.get((name, axis), 0) for name, axis in cost.along)
            saved += cost.at(structure.shapes) - cost.positions * left
    return saved


def saved_by_block(structure: Structure, name: str, costs: Iterable[LayerCost]) -> float:
    """How much of `costs` removing the block `name` from the network as it is saves: what it costs, and what it
    costs to read the channels that go with it."""
    costs = tuple(costs)
    return costs_after(structure, costs) - costs_after(structure, costs, {}, [name])
