"""Peak memory as costs that follow a cut: at each moment of the forward pass, the weights and what is alive then."""

from collections import defaultdict
from typing import Any

from torch import nn

from amsc.borrowing import named_tensors
from amsc.measurement import Activations, input_bytes, live_activations
from amsc.structure import ChannelGroup, LayerCost, Structure, byte_costs
from amsc.structure.cutting import removed_positions
from amsc.surgery import apply_plan, plan_cut

__all__ = ["memory_costs", "weight_costs"]

Axis = tuple[str, int]


def weight_costs(model: nn.Module, structure: Structure) -> tuple[LayerCost, ...]:
    """The bytes of each parameter and buffer."""
    sizes = {name: (tensor.numel(), tensor.element_size()) for name, tensor in named_tensors(model).items()}
    return byte_costs(structure, sizes)


def memory_costs(model: nn.Module, structure: Structure, example_inputs: Any) -> tuple[tuple[LayerCost, ...], ...]:
    """The bytes that are alive at each moment of a forward pass: weights, buffers, inputs and activations.

    What an activation's size follows is found by removing half of each group in turn and looking. Exact for removed
    channels; with a removed block what it returned is counted on, beside its input, which now takes its place.
    """
    live = live_activations(model, example_inputs)
    fixed = (*weight_costs(model, structure), LayerCost("", input_bytes(example_inputs)))
    costs = _activation_costs(model, structure, example_inputs, live)
    return tuple((*fixed, *(cost for i in moment for cost in costs[i])) for moment in live.moments)


def _activation_costs(
    model: nn.Module, structure: Structure, example_inputs: Any, live: Activations
) -> list[tuple[LayerCost, ...]]:
    """Bytes of each activation: in proportion to axes of parameters where all of it is, otherwise a part for each."""
    whole: dict[int, set[Axis]] = defaultdict(set)
    parts: dict[int, dict[Axis, float]] = defaultdict(dict)
    for group in structure.channels:
        if not group.removable or group.size < 2:
            continue
        axis, gone = _axis(group), range(group.size // 2)
        plan = plan_cut(structure, channels={group.name: gone})
        sizes = live_activations(apply_plan(model, plan, example_inputs), example_inputs).sizes
        if len(sizes) != len(live.sizes):  # other operators run: nothing is known to become smaller
            continue
        length = structure.shapes[axis[0]][axis[1]]
        removed = len(removed_positions(structure, {group.name: gone})[axis])
        for number, (before, after) in enumerate(zip(live.sizes, sizes, strict=True)):
            if after * length == before * (length - removed):
                whole[number].add(axis)
            elif after < before:
                parts[number][axis] = (before - after) / removed
    return [_costs(structure, live, i, whole[i], parts[i]) for i in range(len(live.sizes))]


def _costs(
    structure: Structure, live: Activations, number: int, whole: set[Axis], parts: dict[Axis, float]
) -> tuple[LayerCost, ...]:
    module, left = live.modules[number], float(live.sizes[number])
    if whole:
        for name, axis in whole:
            left /= structure.shapes[name][axis]
        return (LayerCost(module, left, tuple(sorted(whole))),)
    costs = [LayerCost(module, each, (axis,)) for axis, each in parts.items()]
    return (LayerCost(module, left - sum(cost.at(structure.shapes) for cost in costs)), *costs)


def _axis(group: ChannelGroup) -> Axis:
    """The axis that is taken for the group: that of the first weight that makes its channels."""
    makers = [member for member in group.members if member.role == "out"] or list(group.members)
    return makers[0].parameter, makers[0].axis
