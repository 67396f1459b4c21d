"""Layers of a DenseNet: submodules that only make new channels for others to read, and that can go with these."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import prod

from amsc.structure.blocks.module_calls import NewChannels
from amsc.structure.blocks.search import CONTAINER_SHARE
from amsc.structure.names import is_inside
from amsc.structure.parts import Block, ChannelGroup
from amsc.structure.structure import Structure

__all__ = ["with_dense_layers"]

Positions = dict[tuple[str, int], set[int]]


def with_dense_layers(
    structure: Structure, found: tuple[Block, ...], candidates: Mapping[str, NewChannels]
) -> tuple[Block, ...]:
    """The blocks `found`, with those of the candidates that are dense layers: blocks whose channels go with them.

    The new channels must be the whole of exact groups that nothing outside takes part in making, and whatever reads
    them must be left with others, also if all dense layers go; where they are all that a tensor has, the last layer
    stays. A dense layer in another one does not count, one in another block must hold two weights. Where there are
    dense layers, no other candidate is a branch: in the place of the channels that go it would return zeros.

    Args:
        structure: the network's, without blocks.
        found: blocks of other kinds.
        candidates: what the search found that only makes new channels, the outer modules first.
    """
    possible: dict[str, Block] = {}
    for name, new in candidates.items():
        groups = _leaving(structure, name)
        if sum(group.size for group in groups) == new.size and not _emptied(structure, groups, name, {}):
            possible[name] = replace(new.block, name=name, channels=tuple(group.name for group in groups))
    dense: dict[str, Block] = {}
    taken: Positions = {}
    for name, block in possible.items():
        groups = [structure.group(channels) for channels in block.channels]
        is_new = not any(is_inside(name, other) for other in dense)
        if is_new and _is_layer(structure, name, found, possible) and not _emptied(structure, groups, name, taken):
            dense[name] = block
            taken |= _added(taken, _positions_outside(groups, name))
    if not dense:
        return found
    return (*(block for block in found if block.name not in candidates), *dense.values())


def _is_layer(structure: Structure, name: str, found: Iterable[Block], possible: Iterable[str]) -> bool:
    """Whether it holds a weight, two in another block, and is no container of blocks, or of several dense layers."""
    sizes = {p: prod(shape) for p, shape in structure.shapes.items() if is_inside(p, name)}
    sizes = {p: size for p, size in sizes.items() if p not in structure.buffers}
    num_weights = sum(len(structure.shapes[p]) > 1 for p in sizes)
    around = any(is_inside(name, block.name) for block in found if block.name != name)
    inner = [block.name for block in found if is_inside(block.name, name) and block.name != name]
    layers = [other for other in possible if is_inside(other, name) and other != name]
    inner += layers if len(layers) > 1 and not all(is_inside(other, layers[0]) for other in layers) else []
    held = sum(size for p, size in sizes.items() if any(is_inside(p, block) for block in inner))
    return num_weights > around and held < CONTAINER_SHARE * sum(sizes.values())


def _leaving(structure: Structure, name: str) -> list[ChannelGroup]:
    """The groups that are made in the module `name` and read outside; none if one of them cannot go with it."""
    leaving = []
    for group in structure.channels:
        makers = [is_inside(member.parameter, name) for member in group.members if member.role == "out"]
        if any(makers) and not all(is_inside(member.parameter, name) for member in group.members):
            if not all(makers) or not group.removable or group.kind in ("head", "head_dim"):
                return []
            leaving.append(group)
    return leaving


def _emptied(structure: Structure, groups: Iterable[ChannelGroup], name: str, taken: Positions) -> bool:
    """Whether a tensor outside of the module `name` has nothing but channels of these groups, and what is `taken`."""
    wanted = _added(taken, _positions_outside(groups, name))
    return any(len(positions) == structure.shapes[key[0]][key[1]] for key, positions in wanted.items())


def _added(taken: Positions, more: Positions) -> Positions:
    return {key: positions | taken.get(key, set()) for key, positions in more.items()}


def _positions_outside(groups: Iterable[ChannelGroup], name: str) -> Positions:
    """(parameter, axis) -> the positions of these groups, without the parameters of the module `name`."""
    positions: Positions = defaultdict(set)
    for group in groups:
        for member in group.members:
            if not is_inside(member.parameter, name):
                positions[member.parameter, member.axis].update(p for own in member.indices for p in own)
    return positions
