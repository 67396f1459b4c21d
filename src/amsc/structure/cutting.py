"""What goes with channels and blocks, and the structure that is left."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from amsc.errors import CutError
from amsc.structure.group_changes import followed, handed_on, joined, renumbering, shrunk_group, with_biases
from amsc.structure.names import is_in_any, is_inside
from amsc.structure.parts import PRODUCERS, Block, BlockCall, ChannelGroup, LayerCost, OutputLeaf
from amsc.structure.stored_sizes import sizes_after
from amsc.structure.structure import Structure

__all__ = [
    "after_removal",
    "block_macs",
    "channels_gone",
    "costs_outside",
    "folded_layers",
    "keeps_shape",
    "kept_shapes",
    "narrowed",
    "removed_positions",
    "stand_in_calls",
    "with_new_biases",
]


def channels_gone(
    structure: Structure, channels: Mapping[str, Iterable[int]], blocks: Iterable[str] = ()
) -> dict[str, tuple[int, ...]]:
    """These channels (group name -> sorted indices), and all those that go with these blocks.

    What a plain convolution that goes reads, it hands on: of the group that it makes the same channels go, unless
    others are named."""
    blocks = tuple(blocks)
    gone = {name: _checked(structure.group(name), indices) for name, indices in channels.items()}
    for _ in blocks if gone else ():  # one may hand on what another hands on to it
        before = len(gone)
        for name in (name for name in blocks if structure.block(name).kind.is_dirac):
            gone = handed_on(structure.channels, f"{name}.weight", gone) | gone
        if len(gone) == before:
            break
    return gone | {name: tuple(range(structure.group(name).size)) for name in _made_by(structure, blocks)}


def removed_positions(
    structure: Structure, channels: Mapping[str, Iterable[int]], blocks: Iterable[str] = ()
) -> dict[tuple[str, int], tuple[int, ...]]:
    """(parameter, axis) -> sorted positions that go with these channels (group name -> indices).

    Parameters of the removed blocks are left out: they go whole; so are channels produced by nothing else, unless the
    zeros in their place have a width of their own."""
    blocks = tuple(blocks)
    gone = _block_parameters(structure, blocks)
    positions = _positions_gone(structure, channels, blocks)
    return {key: owned for key, owned in positions.items() if key[0] not in gone}


def stand_in_calls(
    structure: Structure, channels: Mapping[str, Iterable[int]], blocks: Iterable[str]
) -> dict[str, BlockCall]:
    """What stands in for these blocks where `nn.Identity` does not, as wide as what reads it once the channels are
    gone."""
    blocks = tuple(blocks)
    calls = {name: call for name in blocks if (call := structure.block(name).call) is not None}
    if not any(leaf.parameter for call in calls.values() for leaf in call.leaves):
        return calls
    gone = _positions_gone(structure, channels, blocks)
    return {name: narrowed(call, gone) for name, call in calls.items()}


def narrowed(call: BlockCall, gone: Mapping[tuple[str, int], Collection[int]]) -> BlockCall:
    """The stand-in once the positions `gone` (by parameter and axis) are: zeros of their own width lose theirs."""

    def left(leaf: OutputLeaf) -> OutputLeaf:
        return replace(leaf, size=leaf.size - len(gone.get((leaf.parameter, leaf.parameter_axis), ())))

    return replace(call, leaves=tuple(left(leaf) if leaf.parameter else leaf for leaf in call.leaves))


def _positions_gone(
    structure: Structure, channels: Mapping[str, Iterable[int]], blocks: tuple[str, ...]
) -> dict[tuple[str, int], tuple[int, ...]]:
    """`removed_positions`, with what the blocks' own parameters would lose if they were not gone."""
    own = _made_by(structure, blocks)
    silent = _block_parameters(structure, [block for block in blocks if not structure.block(block).kind.is_dirac])
    calls = filter(None, (structure.block(name).call for name in blocks))
    widths = {(leaf.parameter, leaf.parameter_axis) for call in calls for leaf in call.leaves}
    positions: dict[tuple[str, int], set[int]] = {}
    for name, chosen in channels_gone(structure, channels, blocks).items():
        group = structure.group(name)
        is_made = any(m.parameter not in silent for m in group.members if m.role in PRODUCERS)
        if name not in own and not is_made and widths.isdisjoint((m.parameter, m.axis) for m in group.members):
            continue  # nothing produces these channels any more; the block's stand-in has all of them
        for member in group.members:
            owned = positions.setdefault((member.parameter, member.axis), set())
            owned.update(chain.from_iterable(map(member.indices.__getitem__, chosen)))
    return {key: tuple(sorted(owned)) for key, owned in positions.items() if owned}


def folded_layers(
    structure: Structure, channels: Mapping[str, Sequence[int]], blocks: Iterable[str] = ()
) -> tuple[str, ...]:
    """The layers that read these channels as constants, which move into their biases; sorted."""
    blocks = tuple(blocks)
    gone = channels_gone(structure, channels, blocks)
    layers = {layer for group in structure.channels if gone.get(group.name) for layer in group.folds}
    if not layers:
        return ()
    positions = removed_positions(structure, channels, blocks)
    return tuple(sorted(layer for layer in layers if (f"{layer}.weight", 1) in positions))


def with_new_biases(structure: Structure, layers: Iterable[str]) -> Structure:
    """The structure of the same network in which all these layers have a bias."""
    new = {f"{layer}.weight": f"{layer}.bias" for layer in layers if f"{layer}.bias" not in structure.shapes}
    if not new:
        return structure
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in structure.shapes.items():
        shapes[name] = shape
        if name in new:
            shapes[new[name]] = shape[:1]
    return replace(
        structure,
        shapes=shapes,
        channels=tuple(with_biases(group, new) for group in structure.channels),
        blocks=tuple(replace(block, parameters=followed(block.parameters, new)) for block in structure.blocks),
        pins=(
            *structure.pins,
            *(replace(p, parameter=new[p.parameter]) for p in structure.pins if p.parameter in new and p.axis == 0),
        ),
    )


def kept_shapes(
    structure: Structure, channels: Mapping[str, Iterable[int]] | None = None, blocks: Iterable[str] = ()
) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor that is left after removing these channels and blocks."""
    blocks = tuple(blocks)
    chosen = {name: tuple(indices) for name, indices in (channels or {}).items()}
    whole = with_new_biases(structure, folded_layers(structure, chosen, blocks))
    gone = _block_parameters(whole, blocks)
    shapes = {name: list(shape) for name, shape in whole.shapes.items() if name not in gone}
    for (name, axis), positions in removed_positions(whole, chosen, blocks).items():
        shapes[name][axis] -= len(positions)
    return {name: tuple(shape) for name, shape in shapes.items()}


def after_removal(structure: Structure, channels: Mapping[str, Iterable[int]], blocks: Iterable[str] = ()) -> Structure:
    """The structure of the cut network: groups keep their names, positions are renumbered.

    Groups that are emptied or lie wholly in removed blocks are gone."""
    blocks = tuple(blocks)
    chosen = {name: _checked(structure.group(name), indices) for name, indices in channels.items()}
    whole = with_new_biases(structure, folded_layers(structure, chosen, blocks))
    if whole is not structure:
        return after_removal(whole, chosen, blocks)
    removed = {name: frozenset(indices) for name, indices in channels_gone(structure, chosen, blocks).items()}
    gone = _block_parameters(structure, blocks)
    positions = removed_positions(structure, chosen, blocks)
    renumber = {key: renumbering(structure.shapes[key[0]][key[1]], lost) for key, lost in positions.items()}
    whole_groups = structure.channels
    for name in blocks:
        if structure.block(name).kind.is_dirac:
            whole_groups = joined(whole_groups, f"{name}.weight")
    groups = (shrunk_group(group, removed.get(group.name, frozenset()), gone, renumber) for group in whole_groups)
    small = replace(
        structure,
        shapes=kept_shapes(structure, channels, blocks),
        buffers=tuple(name for name in structure.buffers if name not in gone),
        channels=tuple(group for group in groups if group is not None),
        costs=costs_outside(structure.costs, blocks),
        limits=tuple(replace(limit, costs=costs_outside(limit.costs, blocks)) for limit in structure.limits),
        pins=tuple(pin for pin in structure.pins if pin.parameter not in gone),
        sizes=sizes_after(structure.sizes, structure.channels, structure.shapes, positions),
        stuck={name: why for name, why in structure.stuck.items() if not is_in_any(name, blocks)},
    )
    left = [block for block in structure.blocks if not is_in_any(block.name, blocks)]
    left = [block for block in left if not block.kind.is_dirac or keeps_shape(block.name, positions)]
    return replace(small, blocks=tuple(_block_now(small, block, gone, positions) for block in left))


def _block_now(
    structure: Structure, block: Block, gone: frozenset[str], positions: Mapping[tuple[str, int], tuple[int, ...]]
) -> Block:
    """The block in the `structure` that is left without the parameters `gone` and these positions."""
    own = tuple(name for name in block.parameters if name not in gone)
    call = None if block.call is None else narrowed(block.call, positions)
    return replace(block, parameters=own, macs=block_macs(structure, block.name), call=call)


def _made_by(structure: Structure, blocks: Iterable[str]) -> tuple[str, ...]:
    """The groups that go wholly with these blocks."""
    return tuple(name for block in blocks for name in structure.block(block).channels)


def _block_parameters(structure: Structure, blocks: Iterable[str]) -> frozenset[str]:
    insides = tuple(f"{structure.block(block).name}." for block in blocks)
    return frozenset(p for p in structure.shapes if p.startswith(insides)) if insides else frozenset()


def _checked(group: ChannelGroup, indices: Iterable[int]) -> tuple[int, ...]:
    chosen = tuple(sorted(set(indices)))
    if chosen and (chosen[0] < 0 or chosen[-1] >= group.size):
        raise CutError(f"group {group.name} has channels 0 to {group.size - 1}; got {chosen[0]} to {chosen[-1]}")
    return chosen


def costs_outside(costs: Iterable[LayerCost], blocks: Iterable[str]) -> tuple[LayerCost, ...]:
    """The costs of what does not lie in these blocks."""
    return tuple(cost for cost in costs if not is_in_any(cost.module, blocks))


def keeps_shape(convolution: str, removed: Mapping[tuple[str, int], tuple[int, ...]]) -> bool:
    """Whether the same channels are removed from what this layer reads and from what it makes."""
    return removed.get((f"{convolution}.weight", 0)) == removed.get((f"{convolution}.weight", 1))


def block_macs(structure: Structure, name: str) -> int:
    """Multiply-adds of everything that runs inside the submodule `name`."""
    return int(sum(cost.at(structure.shapes) for cost in structure.costs if is_inside(cost.module, name)))
