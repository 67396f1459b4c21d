"""Operators that only move data: run on the labels."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import prod
from operator import mul
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from amsc.structure.labels.combine import Layers, Operand, combine
from amsc.structure.labels.ledger import compact, core, no_labels, varying_axes
from amsc.structure.operators.registry import AVERAGE, NUMBER_BY_NUMBER, FactRule, Rule, collector
from amsc.structure.tracing.tracer import Tracer

__all__ = ["FACTS", "RULES", "hold_parts"]

RULES: dict[str, Rule] = {}
FACTS: dict[str, FactRule] = {}
_rule = collector(RULES, FACTS)


@_rule("_to_copy", fact=NUMBER_BY_NUMBER)
@_rule("detach alias clone lift_fresh lift _conj")
@_rule("lift_fresh_copy detach_ _reshape_copy view_copy")
def _same(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """The same elements in the same places."""
    view = tracer.parameters.view(args[0])
    if view is not None:
        tracer.parameters.set_view(output, *view)
    elif output.shape != args[0].shape:
        _reshape(tracer, func, args, kwargs, output)
    else:
        tracer.labels.set_layers(output, tracer.labels.layers(args[0]))
        _stays_uniform(tracer, args[0], output)


@_rule("t transpose permute t_ transpose_")
def _transpose(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """Axes change places; a transposed parameter is still that parameter."""
    view = tracer.parameters.view(args[0])
    if view is None:
        _on_layers(tracer, func, args, kwargs, output)
        return
    parameter, axes = view
    order = func(torch.empty([2 + axis for axis in range(len(axes))], device="meta"), *args[1:], **kwargs)
    tracer.parameters.set_view(output, parameter, tuple(axes[size - 2] for size in order.shape))


@_rule("view _unsafe_view _reshape_alias squeeze unsqueeze squeeze_ unsqueeze_")
def _reshape(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """The same elements in the same order. Where one labelled axis becomes several, what goes must be whole slices."""
    data: Tensor = args[0]
    if output.dtype != data.dtype:  # view.dtype
        tracer.pin_all(args, "reads the memory of its numbers")
        return
    _keep_kernel(tracer, data, output.shape)
    layers = tuple(_reshaped(layer, output.shape) for layer in tracer.labels.layers(data))
    tracer.labels.set_layers(output, layers)
    _stays_uniform(tracer, data, output)


def _keep_kernel(tracer: Tracer, data: Tensor, shape: torch.Size) -> None:
    """A parameter whose axes after the second are joined to others is the kernel of a convolution, to be multiplied
    with columns of an image: its positions stay."""
    view = tracer.parameters.view(data)
    if view is None or view[1] != tuple(range(data.ndim)) or any(axis > 1 for axis in view[0].axes):
        return
    for before, _ in _factors(tuple(data.shape), tuple(shape)):
        if 1 in before and any(axis > 1 and data.shape[axis] > 1 for axis in before):
            view[0].is_kernel = True


@_rule("flip repeat pixel_shuffle pixel_unshuffle", fact=AVERAGE)
@_rule("expand expand_copy")
def _on_layers(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """Elements change places: the same operator, run on the labels."""
    layers = tuple(compact(func(layer, *args[1:], **kwargs)) for layer in tracer.labels.layers(args[0]))
    tracer.labels.set_layers(output, layers)
    _stays_uniform(tracer, args[0], output)


@_rule("channel_shuffle")
def _channel_shuffle(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """Groups of channels take turns: they must stay equally long, and as many."""
    groups = int(args[1])
    for layer in tracer.labels.layers(args[0]):
        if 1 in varying_axes(layer):
            shape = (layer.shape[0], groups, layer.shape[1] // groups, *layer.shape[2:])
            split = compact(_reshaped(layer, torch.Size(shape)))
            tracer.ledger.box(split, tracer.reason)
            tracer.ledger.freeze(split, [1], f"{tracer.reason} takes fixed positions")
    _on_layers(tracer, func, args, kwargs, output)


@_rule("roll", fact=AVERAGE)
def _roll(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """Positions change places by the user's numbers: along an axis of channels they stay."""
    axes = args[2] if len(args) > 2 and args[2] else kwargs.get("dims") or range(output.ndim)
    _freeze(tracer, args[0], {axis % output.ndim for axis in axes})
    _on_layers(tracer, func, args, kwargs, output)


@_rule("im2col")
def _im2col(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """(n, c, h, w) to (n, c * kernel, positions): each channel once for every element of the kernel."""
    kernel = prod(args[1])
    layers = []
    for layer in tracer.labels.layers(args[0]):
        mixed = tracer.ledger.mix(layer, range(layer.ndim - 2, layer.ndim), tracer.reason)
        columns = mixed.flatten(-2).expand(*layer.shape[:-2], 1)
        layers.append(compact(columns.repeat_interleave(kernel, -2).expand(output.shape)))
    tracer.labels.set_layers(output, layers)


@_rule("cat", fact=AVERAGE)
def _concatenate(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """Layers along the joined axis are joined; along the others, what is side by side lives and dies together."""
    tensors = [tensor for tensor in args[0] if tensor.ndim == output.ndim]
    axis = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % output.ndim
    tracer.labels.set_layers(
        output, _joined(tracer, tensors, [tracer.labels.layers(tensor) for tensor in tensors], axis, output)
    )
    if all(tracer.labels.is_zero(tensor) for tensor in tensors):
        tracer.labels.set_uniform(output, is_zero=True)


@_rule("stack", fact=AVERAGE)
def _stack(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """Concatenation along a new axis."""
    tensors: Sequence[Tensor] = args[0]
    axis = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % output.ndim
    every = [tuple(layer.unsqueeze(axis) for layer in tracer.labels.layers(tensor)) for tensor in tensors]
    shaped = [tensor.unsqueeze(axis) for tensor in tensors]
    for tensor, placed in zip(tensors, shaped, strict=True):
        _stays_uniform(tracer, tensor, placed)
    tracer.labels.set_layers(output, _joined(tracer, shaped, every, axis, output))


def _joined(tracer: Tracer, tensors: Sequence[Tensor], every: Sequence[Layers], axis: int, output: Tensor) -> Layers:
    across: list[Tensor] = []
    beside: list[Operand] = []
    shape = list(output.shape)
    shape[axis] = 1
    for tensor, layers in zip(tensors, every, strict=True):
        along = [layer for layer in layers if axis in varying_axes(layer) or not varying_axes(layer)]
        across.append(along[0] if along else no_labels(tensor.shape))
        for layer in along[1:]:
            tracer.ledger.pin(layer, f"{tracer.reason} joins several channels there")
        rest = tuple(layer.narrow(axis, 0, 1).expand(shape) for layer in layers if all(layer is not a for a in along))
        followed = {a for layer in along for a in varying_axes(layer)}
        own = tracer.labels.own_axes(tensor) - followed - {axis}
        beside.append(Operand(rest, own, tracer.labels.is_zero(tensor)))
    results = list(combine(tracer.ledger, beside, all, tracer.reason))
    if any(bool((layer != 0).any()) for layer in map(core, across)):
        others = {a for layer in across for a in varying_axes(layer)} - {axis}
        pieces = [_kept_along(layer, {axis, *others}) for layer in across]
        sizes = [max(piece.shape[a] for piece in pieces) for a in range(output.ndim)]
        same = [
            piece.expand([piece.shape[a] if a == axis else sizes[a] for a in range(output.ndim)]) for piece in pieces
        ]
        results.append(torch.cat(same, axis))
    return tuple(results)


def _kept_along(layer: Tensor, axes: set[int]) -> Tensor:
    """The layer with size 1 along all other axes (it does not change along them)."""
    for axis in range(layer.ndim):
        if axis not in axes:
            layer = layer.narrow(axis, 0, 1)
    return layer


@_rule("slice select split split_with_sizes unbind unsafe_split unsafe_split_with_sizes")
@_rule("slice_copy select_copy split_copy split_with_sizes_copy unbind_copy")
def _part(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
    """Parts of an axis. Along an axis of channels equal parts stay equal; where parts are not equal, the positions are
    constants of the user's code: whether they follow a cut has to be tried."""
    data: Tensor = args[0]
    outputs = [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]
    name = func._schema.name.removeprefix("aten::")
    axis = _axis_of(func, args, kwargs, data.ndim)
    view = tracer.parameters.view(data)
    if view is not None and name in ("select", "unbind") and data.ndim > 1:
        parameter, axes = view
        if axes[axis] in parameter.axes:
            tracer.ledger.pin(parameter.axes[axes[axis]], f"{tracer.reason} takes fixed positions")
        for leaf in outputs:
            tracer.parameters.set_view(leaf, parameter, axes[:axis] + axes[axis + 1 :])
        return
    parts: list[list[Tensor]] = [[] for _ in outputs]
    for layer in tracer.labels.layers(data):
        if axis in varying_axes(layer):
            hold_parts(tracer, layer, axis, outputs, data)
            if not _can_follow(name, layer, axis, outputs, data):
                tracer.ledger.freeze(layer, [axis], f"{tracer.reason} takes fixed positions")
        for part, moved in zip(parts, pytree.tree_leaves(func(layer, *args[1:], **kwargs)), strict=True):
            part.append(compact(moved))
    for leaf, layers in zip(outputs, parts, strict=True):
        tracer.labels.set_layers(leaf, layers)
        _stays_uniform(tracer, data, leaf)


def _axis_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], rank: int) -> int:
    names = [argument.name for argument in func._schema.arguments]
    given = dict(zip(names, args, strict=False)) | kwargs
    return int(given.get("dim", 0)) % rank


def _can_follow(name: str, layer: Tensor, axis: int, outputs: Sequence[Tensor], data: Tensor) -> bool:
    """Parts that make up the axis can stay so; one part alone only if it is one of equal ones."""
    if len(outputs) > 1 or name.startswith(("select", "unbind")):
        return True
    (part,) = outputs
    size = part.shape[axis]
    if size == data.shape[axis]:
        return True
    start = (part.storage_offset() - data.storage_offset()) // max(data.stride(axis), 1)
    is_contiguous = part.stride(axis) == data.stride(axis) or size == 1
    return is_contiguous and size > 0 and data.shape[axis] % size == 0 and start % size == 0


def hold_parts(tracer: Tracer, layer: Tensor, axis: int, outputs: Sequence[Tensor], data: Tensor) -> None:
    """Equal parts of an axis lose the same positions; single positions that are picked out stay."""
    if outputs[0].ndim < data.ndim:  # select, unbind
        tracer.ledger.freeze(layer, [axis], f"{tracer.reason} takes fixed positions")
        return
    sizes = {part.shape[axis] for part in outputs}
    size = max(sizes)
    if len(sizes) == 1 and 0 < size < layer.shape[axis] and layer.shape[axis] % size == 0:
        shape = (*layer.shape[:axis], layer.shape[axis] // size, size, *layer.shape[axis + 1 :])
        split = compact(_reshaped(layer, torch.Size(shape)))
        tracer.ledger.box(split, tracer.reason)
        tracer.ledger.freeze(split, [axis], f"{tracer.reason} takes fixed positions")


@_rule("unfold diagonal tril triu tril_ triu_")
def _window(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """Positions by the user's numbers: free along other axes than those of channels."""
    name = func._schema.name.removeprefix("aten::")
    rank = args[0].ndim
    if name == "unfold":
        axes = {args[1] % rank}
    elif name == "diagonal":
        dims = [*args[2:4], *([0, 1][len(args[2:4]) :])]
        axes = {kwargs.get("dim1", dims[0]) % rank, kwargs.get("dim2", dims[1]) % rank}
    else:
        axes = {rank - 2, rank - 1}
    _freeze(tracer, args[0], axes)
    if name.startswith("tri"):
        tracer.labels.set_layers(output, tracer.labels.layers(args[0]))
    else:
        _on_layers(tracer, func, args, kwargs, output)


@_rule("as_strided")
def _as_strided(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """A window into memory: the user's numbers, unless it is the tensor as it is."""
    data: Tensor = args[0]
    if output.shape == data.shape and output.stride() == data.stride():
        tracer.labels.set_layers(output, tracer.labels.layers(data))
    else:
        tracer.pin_all(args, "takes fixed positions")


@_rule("constant_pad_nd")
def _pad(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """Padded positions belong to their channel; positions added to the channel axis itself are constants
    of the user's code and stay."""
    amounts = list(args[1])
    value = args[2] if len(args) > 2 else kwargs.get("value", 0)
    layers = []
    for layer in tracer.labels.layers(args[0]):
        small, varying = core(layer), varying_axes(layer)
        own, padded_elsewhere = [0] * len(amounts), False
        for pair in range(len(amounts) // 2):
            both = slice(2 * pair, 2 * pair + 2)
            if layer.ndim - 1 - pair in varying:
                own[both] = amounts[both]
            else:
                padded_elsewhere |= any(amount > 0 for amount in amounts[both])
        if padded_elsewhere and value != 0:
            small = -small.abs()
        if any(amount < 0 for amount in own):
            tracer.ledger.pin(layer, f"{tracer.reason} takes fixed positions")
            continue
        layers.append(compact(func(small, own, 0)))
    tracer.labels.set_layers(output, layers)


@_rule("view_as_real view_as_complex")
def _complex(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """A complex number is two real ones, which live and die together."""
    layers = []
    for layer in tracer.labels.layers(args[0]):
        if output.is_complex():
            layers.append(tracer.ledger.mix(layer, [layer.ndim - 1], tracer.reason).squeeze(-1))
        else:
            layers.append(core(layer).unsqueeze(-1))
    tracer.labels.set_layers(output, layers)


def _freeze(tracer: Tracer, data: Tensor, axes: set[int]) -> None:
    """Positions along these axes are numbers of the user's code: they stay."""
    for layer in tracer.labels.layers(data):
        tracer.ledger.freeze(layer, sorted(axes), f"{tracer.reason} takes fixed positions")


def _stays_uniform(tracer: Tracer, data: Tensor, output: Tensor) -> None:
    if tracer.labels.is_uniform(data):
        tracer.labels.set_uniform(output, is_zero=tracer.labels.is_zero(data))


def _reshaped(layer: Tensor, shape: torch.Size) -> Tensor:
    """The layer in another shape, without writing out the axes along which it does not change."""
    if layer.numel() == 0 or tuple(layer.shape) == tuple(shape):
        return no_labels(shape) if layer.numel() == 0 else layer
    varying = varying_axes(layer)
    small, whole, new = core(layer), [], []
    for before, after in _factors(tuple(layer.shape), tuple(shape)):
        changes = any(axis in varying for axis in before)
        whole += [layer.shape[axis] if changes else 1 for axis in before]
        new += [shape[axis] if changes else 1 for axis in after]
    return compact(small.expand(whole).reshape(new)).expand(shape)


def _factors(old: tuple[int, ...], new: tuple[int, ...]) -> Iterator[tuple[range, range]]:
    """The smallest runs of axes of two shapes that hold the same number of elements, in order."""
    ends = [list(accumulate(shape, mul)) for shape in (old, new)]
    first = [0, 0]
    for place, size in enumerate(ends[0]):
        is_last = place == len(old) - 1
        if size in ends[1][first[1] :] or is_last:
            stop = len(new) if is_last else ends[1].index(size, first[1]) + 1
            yield range(first[0], place + 1), range(first[1], stop)
            first = [place + 1, stop]
    if not old:
        yield range(0), range(len(new))
