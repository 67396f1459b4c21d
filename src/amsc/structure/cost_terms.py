"""What a network costs beside multiply-adds, in costs that follow a cut: parameters, bytes, what time depends on."""

from collections.abc import Iterator, Mapping

from amsc.structure.names import holder
from amsc.structure.parts import LayerCost
from amsc.structure.structure import Structure

__all__ = ["byte_costs", "parameter_costs", "time_features"]


def parameter_costs(structure: Structure) -> tuple[LayerCost, ...]:
    """One cost per parameter: the number of its elements, as `predicted_parameters` counts them."""
    return _held(structure, {name: 1 for name in structure.shapes if name not in structure.buffers})


def byte_costs(structure: Structure, sizes: Mapping[str, tuple[int, int]]) -> tuple[LayerCost, ...]:
    """One cost per parameter and buffer: its bytes.

    Args:
        sizes: number of elements and bytes of each element, of every tensor of the network by name.
    """
    others = (
        LayerCost(holder(name), count * size) for name, (count, size) in sizes.items() if name not in structure.shapes
    )
    element = {name: sizes[name][1] for name in structure.shapes}
    return (*_held(structure, element), *others)


def time_features(structure: Structure) -> tuple[tuple[LayerCost, ...], ...]:
    """What the latency is taken to be a sum of, each a kind of cost: one, the number of operators, multiply-adds,
    elements read and written by them, and parameters."""
    ends = [(cost, *_ends(cost)) for cost in structure.costs]
    return (
        (LayerCost("", 1),),
        tuple(LayerCost(cost.module, 1, ()) for cost in structure.costs),
        structure.costs,
        tuple(read for _, read, _ in ends if read is not None),
        tuple(written for _, _, written in ends if written is not None),
        parameter_costs(structure),
    )


def _ends(cost: LayerCost) -> tuple[LayerCost | None, LayerCost | None]:
    """Elements that a convolution or linear layer reads (as often as its stride makes outputs) and writes."""
    sizes = {axis: (name, axis) for name, axis in cost.along if axis in (0, 1)}
    if not sizes:
        return None, None
    found = (LayerCost(cost.module, cost.positions, (sizes[axis],)) if axis in sizes else None for axis in (1, 0))
    return next(found), next(found)


def _held(structure: Structure, element: Mapping[str, int]) -> tuple[LayerCost, ...]:
    """`element` for each position of the tensors, and for those of the biases that layers get (`with_biases`) that of
    their weights."""
    own = (
        LayerCost(holder(name), size, tuple((name, axis) for axis in range(len(structure.shapes[name]))))
        for name, size in element.items()
    )
    made = (LayerCost(layer, element[f"{layer}.weight"], ((f"{layer}.bias", 0),)) for layer in _foldable(structure))
    return (*own, *made)


def _foldable(structure: Structure) -> Iterator[str]:
    """Layers without a bias that would get one."""
    layers = dict.fromkeys(layer for group in structure.channels for layer in group.folds)
    return (layer for layer in layers if f"{layer}.bias" not in structure.shapes)
