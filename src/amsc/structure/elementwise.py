"""Element-wise operators: what they align lives and dies together; whether zero stays zero is found by trying."""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from amsc.structure.labels import compact, core, no_labels, varying_axes
from amsc.structure.tracer import Tracer

__all__ = ["copy_in_place", "elementwise"]


def elementwise(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
    """Unite the labels of aligned elements; the result is zero where the operator gives zero for what is zero."""
    first = output[0] if isinstance(output, tuple | list) else output
    operands = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    shape = first.shape
    every = [tracer.labels(operand).expand(shape) for operand in operands]
    if all(not bool((core(labels) != 0).any()) for labels in every):
        result = no_labels(shape)
    else:
        _pin_unequal(tracer, operands, every, shape)
        result = compact(_combine(tracer, func, args, kwargs, _common_core(every)).expand(shape))
    if func._schema.is_mutable:
        tracer.write(first, result)
    else:
        tracer.set_labels(first, result)


def copy_in_place(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """The destination takes the labels of the source."""
    tracer.write(args[0], compact(tracer.labels(args[1]).expand(args[0].shape)))


def _common_core(every: list[Tensor]) -> list[Tensor]:
    """All label tensors with size 1 on the axes along which none changes."""
    small = torch.broadcast_shapes(*(core(labels).shape for labels in every))
    return [core(labels).expand(small) for labels in every]


def _pin_unequal(tracer: Tracer, operands: list[Tensor], every: list[Tensor], shape: torch.Size) -> None:
    """An operand that belongs to nothing removable but has a value for each channel does not follow a cut."""
    for labels in every:
        channel_axes = varying_axes(labels)
        for operand, others in zip(operands, every, strict=True):
            sizes = [1] * (len(shape) - operand.ndim) + list(operand.shape)
            if any(sizes[axis] > 1 for axis in channel_axes):
                mine, theirs = _common_core([labels, others])
                tracer.ledger.pin(mine[theirs == 0], f"{tracer.reason} joins it with values that stay")


def _combine(tracer: Tracer, func: Any, args: Any, kwargs: Any, every: list[Tensor]) -> Tensor:
    """Labels of the result, element by element."""
    result = torch.zeros_like(every[0])
    for labels in every:
        aligned = (labels != 0) & (result != 0)
        tracer.ledger.unite(result[aligned], labels[aligned], tracer.reason)
        result = torch.where(result == 0, labels.abs(), result)
    states = torch.stack([(labels > 0).long() for labels in every])
    weights = 2 ** torch.arange(len(every))
    codes = (states * weights.reshape(-1, *[1] * (states.ndim - 1))).sum(0)
    codes = torch.where(result == 0, -1, codes)
    signed = result.clone()
    for code in codes.unique().tolist():
        if code >= 0:
            pattern = tuple(bool(code >> place & 1) for place in range(len(every)))
            if not _gives_zero(func, args, kwargs, pattern):
                signed[codes == code] *= -1
    _note_sums(tracer, func, args, kwargs, every)
    return signed


def _note_sums(tracer: Tracer, func: Any, args: Any, kwargs: Any, every: list[Tensor]) -> None:
    """Two channels that meet where one does not silence the other are summed: a residual stream."""
    if len(every) == 2 and not _gives_zero(func, args, kwargs, (True, False)):
        met = (every[0] != 0) & (every[1] != 0) & (every[0].abs() != every[1].abs())
        tracer.ledger.sum(every[0][met], tracer.reason)


def _gives_zero(func: Any, args: Any, kwargs: Any, is_zero: tuple[bool, ...]) -> bool:
    """Whether the operator yields zero when the operands marked in `is_zero` are zero, found by trying."""
    leaves, layout = pytree.tree_flatten((args, kwargs))
    places = tuple(place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor))
    dtypes = tuple(leaves[place].dtype for place in places)
    others = tuple(None if isinstance(leaf, Tensor) else leaf for leaf in leaves)
    try:
        return _try_zero(func, layout, places, dtypes, others, is_zero)
    except TypeError:  # an argument that cannot be hashed: try without remembering
        return _try_zero.__wrapped__(func, layout, places, dtypes, others, is_zero)


@cache
def _try_zero(
    func: Any, layout: Any, places: tuple[int, ...], dtypes: Any, others: tuple[Any, ...], is_zero: tuple[bool, ...]
) -> bool:
    leaves = list(others)
    for place, dtype, zero in zip(places, dtypes, is_zero, strict=True):
        values = torch.tensor([1.7, -0.6, 0.9, -2.3]).to(dtype)
        leaves[place] = torch.zeros_like(values) if zero else values
    args, kwargs = pytree.tree_unflatten(leaves, layout)
    kwargs = {key: value for key, value in kwargs.items() if key not in ("device", "memory_format", "layout")}
    result = func(*args, **kwargs)
    first = result[0] if isinstance(result, tuple | list) else result
    return bool((first == 0).all())
