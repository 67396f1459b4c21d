"""Channels that reach the rest of the network past their normalisation, found by trying.

A structure says which layers read a channel, not whether they read it before or after a normalisation: in
`concat(x, conv(bn(x)))` zero scales and shifts leave x itself as it was. The model's own forward knows.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from amsc.borrowing import borrowed, call_arguments, example_calls, look_into, named_tensors, random_inputs
from amsc.penalty.coordinates import Coordinates, find_coordinates
from amsc.structure.parts import PRODUCERS
from amsc.structure.structure import ChannelGroup, Structure

__all__ = ["find_bypassed_groups"]

TOLERANCE = 1e-4
"""Largest relative difference of outputs that counts as rounding; a real bypass changes them by far more."""


def find_bypassed_groups(structure: Structure, model: nn.Module, *, streams: bool = False) -> frozenset[str]:
    """Penalised groups whose channels are still heard when their scales and shifts are zero.

    Only groups with several readers can be such; without any the model is not run. With some, it runs twice on random
    inputs of the traced shapes, and twice more for each such group if the outputs differ. A group counts as well where
    the output is not finite, so that nothing can be said. `streams` as in `find_coordinates`. The model comes back as
    it was.
    """
    coordinates = find_coordinates(structure, streams=streams)
    suspects = _suspects(structure, coordinates)
    if not suspects:
        return frozenset()
    with borrowed(model):
        if not _are_heard(structure, model, coordinates, suspects):
            return frozenset()
        return frozenset(name for name in suspects if _are_heard(structure, model, coordinates, [name]))


def _suspects(structure: Structure, coordinates: Coordinates) -> list[str]:
    names = dict.fromkeys(name for name, _ in coordinates.channels)
    return [name for name in names if _is_suspect(structure.group(name))]


def _is_suspect(group: ChannelGroup) -> bool:
    """Whether it is normalised and several parameters read it."""
    readers = {member.parameter for member in group.members if member.role == "in"}
    return len(readers) > 1 and any(member.role == "affine" for member in group.members)


def _are_heard(structure: Structure, model: nn.Module, coordinates: Coordinates, names: Iterable[str]) -> bool:
    """Whether zeroing the coordinates of every second channel of these groups differs from zeroing all they own."""
    chosen = {name: range(0, structure.group(name).size, 2) for name in names}
    leaves = {i for i, (name, index) in enumerate(coordinates.channels) if index in chosen.get(name, ())}
    reached = {
        (slices.parameter, slices.axis): tuple(p for p, leaf in enumerate(slices.leaf) if leaf in leaves)
        for slices in coordinates.slices
    }
    one = _output_without(structure, model, reached)
    other = _output_without(structure, model, {**reached, **_owned(structure, chosen)})
    difference = max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))
    return not difference <= TOLERANCE * max(float(b.abs().max()) for b in other)  # also if it is not a number


def _owned(structure: Structure, chosen: Mapping[str, Iterable[int]]) -> dict[tuple[str, int], tuple[int, ...]]:
    """(parameter, axis) -> positions that a masked model would set to zero."""
    positions: dict[tuple[str, int], tuple[int, ...]] = {}
    for name, indices in chosen.items():
        for member in structure.group(name).members:
            if member.role in PRODUCERS:
                key = (member.parameter, member.axis)
                positions[key] = positions.get(key, ()) + tuple(p for c in indices for p in member.indices[c])
    return positions


def _output_without(
    structure: Structure, model: nn.Module, positions: Mapping[tuple[str, int], tuple[int, ...]]
) -> list[Tensor]:
    """The output tensors of the model with these positions of its parameters at zero."""
    tensors = named_tensors(model)
    zeroed: dict[str, Tensor] = {}
    for (name, axis), indices in positions.items():
        tensor = zeroed.setdefault(name, tensors[name].detach().clone())
        tensor.index_fill_(axis, torch.tensor(indices, dtype=torch.long, device=tensor.device), 0)
    device = next(iter(tensors.values())).device
    inputs = random_inputs(structure.inputs, device, torch.Generator().manual_seed(0))
    outputs = [functional_call(model, zeroed, *call_arguments(call)) for call in example_calls(inputs)]
    return [t.float() for output in outputs for t in look_into(output).tensors.values() if t.numel()]
