"""Operators that combine or pick elements along axes: reductions, pooling, softmax, look-ups, scatters."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from amsc.structure.labels.combine import Layers, Operand, combine, reduce
from amsc.structure.labels.ledger import compact, core, varying_axes
from amsc.structure.operators.registry import AVERAGE, POSITIVE, FactRule, Rule, collector
from amsc.structure.tracing.tracer import Tracer

__all__ = ["FACTS", "RULES"]

RULES: dict[str, Rule] = {}
FACTS: dict[str, FactRule] = {}
_rule = collector(RULES, FACTS)

POSITIONS = "takes its values for positions"

# Reductions of which zeros are no part, and those that are zero for zeros.
_TAKES_ZEROS = ("sum", "linalg_vector_norm", "norm", "nansum")
_ZERO_FOR_ZEROS = (*_TAKES_ZEROS, "mean", "amax", "amin", "max", "min", "var", "std", "prod")


def _spatial(rank: int) -> Rule:
    def channelwise(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Pooling, interpolation and the like: mixes the last `rank` axes, channel by channel, and gives 0 for 0."""
        data: Tensor = args[0]
        mixed = [
            tracer.ledger.mix(x, range(data.ndim - rank, data.ndim), tracer.reason) for x in tracer.labels.layers(data)
        ]
        for leaf in pytree.tree_leaves(output):
            tracer.labels.set_layers(leaf, mixed)

    return channelwise


_rule(
    "max_pool2d_with_indices avg_pool2d adaptive_max_pool2d _adaptive_avg_pool2d upsample_nearest2d "
    "upsample_bilinear2d reflection_pad2d replication_pad2d",
    fact=AVERAGE,
)(_spatial(2))
_rule("max_pool3d_with_indices avg_pool3d _adaptive_avg_pool3d", fact=AVERAGE)(_spatial(3))
_rule("upsample_nearest1d upsample_linear1d", fact=AVERAGE)(_spatial(1))
_rule("_upsample_nearest_exact1d reflection_pad1d replication_pad1d")(_spatial(1))
_rule("upsample_bicubic2d _upsample_nearest_exact2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa")(_spatial(2))
_rule(
    "adaptive_max_pool3d upsample_nearest3d upsample_trilinear3d _upsample_nearest_exact3d reflection_pad3d "
    "replication_pad3d"
)(_spatial(3))


@_rule("grid_sampler_2d grid_sampler_3d")
def _grid_sample(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """Interpolation at positions that must not depend on what goes."""
    tracer.pin_all(args[1], POSITIONS)
    data: Tensor = args[0]
    mixed = [tracer.ledger.mix(x, range(2, data.ndim), tracer.reason) for x in tracer.labels.layers(data)]
    tracer.labels.set_layers(output, mixed)


@_rule("mean sum", fact=AVERAGE)
@_rule("amax amin max min var std linalg_vector_norm norm logsumexp prod var_mean std_mean nansum all any")
def _reduction(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
    """What is reduced within a channel belongs to the channel."""
    data: Tensor = args[0]
    given = _arguments(func, args, kwargs)
    name = func._schema.name.removeprefix("aten::")
    dims = given.get("dim")
    axes = range(data.ndim) if dims is None or dims == [] else _positive(dims, data.ndim)
    layers = reduce(
        tracer.ledger,
        tracer.labels.layers(data),
        tuple(axes),
        f"{tracer.reason} mixes channels",
        takes_zeros=name in _TAKES_ZEROS,
        zero_for_zeros=name in _ZERO_FOR_ZEROS,
    )
    for leaf in (leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)):
        tracer.labels.set_layers(
            leaf, layers if leaf.ndim == data.ndim else [_dropped(layer, axes) for layer in layers]
        )


# (argsort: its stable form had kernels of its own in older versions of torch.)
@_rule("_softmax _safe_softmax", fact=POSITIVE)
@_rule("_log_softmax cumsum cumprod cummax logcumsumexp sort topk argsort")
@_rule("argmax argmin kthvalue mode median")
def _along_axis(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
    """Elements along an axis depend on each other: what goes from it changes the rest, what goes across does not."""
    data: Tensor = args[0]
    name = func._schema.name.removeprefix("aten::")
    given = _arguments(func, args, kwargs)
    dim = given.get("dim", None if name in ("argmax", "argmin", "median") else -1)
    axes = _positive(dim, data.ndim) if dim is not None else tuple(range(data.ndim))
    chooses = name in ("sort", "topk", "argsort", "argmax", "argmin", "kthvalue", "mode", "median")
    results = []
    for layer in tracer.labels.layers(data):
        if not set(axes).intersection(varying_axes(layer)):
            results.append(core(layer) if name == "cumsum" else -core(layer).abs())
        elif chooses:
            tracer.ledger.pin(layer, f"{tracer.reason} depends on every position")
        elif name.startswith(("cum", "logcum")):
            tracer.ledger.freeze(layer, axes, f"{tracer.reason} depends on every position")
            results.append(-layer.abs())
        else:
            tracer.ledger.read(layer, axes, f"{tracer.reason} mixes channels", takes_zeros=False)
            results.append(-layer.abs())
    for leaf in (leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)):
        small = [core(layer) for layer in results]
        tracer.labels.set_layers(leaf, small if leaf.ndim == data.ndim else [_dropped(layer, axes) for layer in small])


@_rule("embedding", fact=AVERAGE)
def _embedding(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """A table of vectors: what goes is a column of it."""
    weight, indices = args[0], args[1]
    tracer.pin_all(indices, POSITIONS)
    view = tracer.parameters.view(weight)
    if view is None:
        layers = tuple(layer for layer in tracer.labels.layers(weight) if varying_axes(layer) == (1,))
        tracer.ledger.pin_layers(
            tuple(x for x in tracer.labels.layers(weight) if varying_axes(x) != (1,)),
            f"{tracer.reason} looks its rows up",
        )
    else:
        layers = tracer.parameters.layers(weight, *view, ["", "out"])
    tracer.labels.set_layers(output, [core(layer).reshape(-1) for layer in layers])


@_rule("index_select", fact=AVERAGE)
def _index_select(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """Positions from a list of the user's: along other axes than those of channels."""
    data, dim, index = args
    tracer.pin_all(index, POSITIONS)
    layers = _standing(tracer, data, {dim % max(data.ndim, 1)})
    tracer.labels.set_layers(output, [core(layer) for layer in layers])


@_rule("index", fact=AVERAGE)
@_rule("_unsafe_index")
def _index(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """The same with lists for several axes."""
    data, indices = args
    tracer.pin_all(indices, POSITIONS)
    layers = _standing(tracer, data, _indexed_axes(indices))
    tracer.labels.set_layers(output, [_indexed(layer, indices, output) for layer in layers])


def _indexed_axes(indices: Sequence[Tensor | None]) -> set[int]:
    axes: set[int] = set()
    place = 0
    for index in indices:
        width = index.ndim if index is not None and index.dtype in (torch.bool, torch.uint8) else 1
        if index is not None:
            axes.update(range(place, place + width))
        place += width
    return axes


def _indexed(layer: Tensor, indices: Sequence[Tensor | None], output: Tensor) -> Tensor:
    """`layer`, which does not change along the indexed axes, as a layer of data[indices]."""
    axes = sorted(_indexed_axes(indices))
    given = [index is not None for index in indices]
    first, last = given.index(True), len(given) - given[::-1].index(True)
    adjacent = all(given[first:last])
    kept = [axis for axis in range(layer.ndim) if axis not in axes]
    num_new = output.ndim - len(kept)
    place = axes[0] if adjacent else 0
    small = _dropped(core(layer), axes)
    return small.reshape(*small.shape[:place], *[1] * num_new, *small.shape[place:])


@_rule("gather", fact=AVERAGE)
def _gather(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """Positions along one axis from a tensor of positions, which must not depend on what goes."""
    data, dim, index = args[:3]
    tracer.pin_all(index, POSITIONS)
    dim %= data.ndim
    layers = [_narrowed(core(layer), output) for layer in _standing(tracer, data, {dim})]
    own = tracer.labels.own_axes(index)
    operands = (
        Operand(tuple(compact(layer.expand(output.shape)) for layer in layers), frozenset()),
        Operand((), own - {dim}),
    )
    tracer.labels.set_layers(output, combine(tracer.ledger, operands, lambda zero: zero[0], tracer.reason))


@_rule("index_add index_add_ index_copy index_copy_ scatter scatter_ scatter_add scatter_add_ scatter_reduce")
@_rule("masked_scatter masked_scatter_ index_put index_put_ index_fill index_fill_ select_scatter slice_scatter")
def _scatter(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """Values written at positions along the first axes: channels along the others live and die together."""
    data: Tensor = args[0]
    given = _arguments(func, args, kwargs)
    values = next((given[name] for name in ("source", "src", "values", "value") if name in given), None)
    positions = [given[name] for name in ("index", "indices", "mask") if name in given]
    tracer.pin_all(positions, POSITIONS)
    if "indices" in given:
        axes = _indexed_axes(given["indices"])
    else:
        axes = {int(given["dim"]) % data.ndim} if "dim" in given else set(range(data.ndim))
    operands = [Operand(_standing(tracer, data, axes), tracer.labels.own_axes(data) - axes)]
    if isinstance(values, Tensor):
        written = _written(tracer, values, data, axes, aligned="indices" not in given)
        if written is None:
            tracer.pin_all((data, values), "writes it to positions that cannot be followed")
            operands = []
        else:
            operands.append(written)
    is_constant = values is not None and not isinstance(values, Tensor) and values != 0
    layers = combine(tracer.ledger, operands, lambda zero: all(zero) and not is_constant, tracer.reason)
    if func._schema.is_mutable:
        tracer.labels.write(output, layers)
    else:
        tracer.labels.set_layers(output, layers)


def _written(tracer: Tracer, values: Tensor, data: Tensor, axes: set[int], *, aligned: bool) -> Operand | None:
    """The values as an operand of the shape of `data`; None where their axes do not correspond."""
    if not aligned:
        trailing = data.ndim - len(axes)
        if axes != set(range(len(axes))) or values.ndim < trailing:
            return Operand((), frozenset()) if values.ndim == 0 else None
        layers = []
        for layer in tracer.labels.layers(values):
            if any(axis < values.ndim - trailing for axis in varying_axes(layer)):
                return None
            small = _dropped(core(layer), range(values.ndim - trailing))
            layers.append(compact(small.expand(data.shape)))
        return Operand(tuple(layers), frozenset(range(len(axes), data.ndim)))
    if values.ndim != data.ndim:
        return None
    kept = _standing(tracer, values, axes)
    layers = [compact(core(layer).expand(data.shape)) for layer in kept if _fits(core(layer), data)]
    return Operand(tuple(layers), tracer.labels.own_axes(values) - axes) if len(layers) == len(kept) else None


def _fits(layer: Tensor, data: Tensor) -> bool:
    return all(small in (1, size) for small, size in zip(layer.shape, data.shape, strict=True))


def _standing(tracer: Tracer, data: Tensor, axes: set[int]) -> Layers:
    """Layers of `data` that do not change along `axes`; the others stay there, as positions are fixed."""
    kept = []
    for layer in tracer.labels.layers(data):
        if axes.intersection(varying_axes(layer)):
            tracer.ledger.pin(layer, f"{tracer.reason} takes fixed positions")
        else:
            kept.append(layer)
    return tuple(kept)


def _narrowed(layer: Tensor, output: Tensor) -> Tensor:
    for axis in range(layer.ndim):
        if layer.shape[axis] > output.shape[axis]:
            layer = layer.narrow(axis, 0, output.shape[axis])
    return layer


def _dropped(layer: Tensor, axes: Sequence[int]) -> Tensor:
    """`layer` (of size 1 along `axes`) without these axes."""
    return layer.reshape([size for axis, size in enumerate(layer.shape) if axis not in axes])


def _positive(dims: int | Sequence[int], rank: int) -> tuple[int, ...]:
    every = [dims] if isinstance(dims, int) else dims
    return tuple(dim % max(rank, 1) for dim in every)


def _arguments(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments by name, as far as they were given."""
    names = [argument.name for argument in func._schema.arguments]
    return dict(zip(names, args, strict=False)) | kwargs
