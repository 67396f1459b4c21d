"""Element-wise operators: what they align lives and dies together; whether zero stays zero is found by trying."""

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from amsc.structure.labels.combine import GivesZero, Operand, combine
from amsc.structure.labels.ledger import compact, varying_axes
from amsc.structure.operators.registry import AVERAGE, NUMBER_BY_NUMBER, FactRule, Rule, collector
from amsc.structure.operators.views import hold_parts
from amsc.structure.tracing.parameters import Parameter
from amsc.structure.tracing.tracer import Tracer

__all__ = ["FACTS", "RULES", "elementwise"]

RULES: dict[str, Rule] = {}
FACTS: dict[str, FactRule] = {}
_rule = collector(RULES, FACTS)


@_rule("_prelu_kernel", fact=NUMBER_BY_NUMBER)
@_rule("hardswish hardswish_ masked_fill masked_fill_ log_sigmoid_forward native_dropout")
def elementwise(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
    """The labels of aligned elements meet; the result is zero where the operator gives zero for what is zero."""
    first = output[0] if isinstance(output, tuple | list) else output
    tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    zero = partial(_gives_zero, func, args, kwargs)
    if not func._schema.is_mutable and (view := _rescaled(tracer, tensors, first, zero)) is not None:
        tracer.parameters.set_view(first, *view)
        return
    operands = [tracer.labels.operand(tensor, first.shape) for tensor in tensors]
    layers = combine(tracer.ledger, operands, zero, tracer.reason, note_sums=True)
    if func._schema.is_mutable:
        tracer.labels.write(first, layers)
    else:
        tracer.labels.set_layers(first, layers)
        if all(not operand.own_axes for operand in operands):
            tracer.labels.set_uniform(first, is_zero=zero(tuple(operand.is_zero for operand in operands)))


def _rescaled(
    tracer: Tracer, tensors: Sequence[Tensor], output: Tensor, gives_zero: GivesZero
) -> tuple[Parameter, tuple[int, ...]] | None:
    """The parameter (and its axes) of which the output is a function, number by number, that keeps zeros: it is cut and
    silenced as the parameter itself is (equalised learning rates, say). None where it is none."""
    views = [tracer.parameters.view(tensor) if tensor.numel() > 1 else None for tensor in tensors]
    wide = [place for place, view in enumerate(views) if view is not None]
    if len(wide) != 1 or tensors[wide[0]].shape != output.shape or not output.is_floating_point():
        return None
    if not all(tracer.parameters.is_fixed(tensor) for place, tensor in enumerate(tensors) if place != wide[0]):
        return None
    return views[wide[0]] if gives_zero(tuple(place == wide[0] for place in range(len(tensors)))) else None


@_rule("copy_", fact=NUMBER_BY_NUMBER)
def _copy_in_place(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """The destination takes the labels of the source."""
    tracer.labels.write(args[0], tuple(layer.expand(args[0].shape) for layer in tracer.labels.layers(args[1])))


@_rule("glu", fact=AVERAGE)
def _glu(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """One half of an axis, times the sigmoid of the other: zero where the first half is."""
    data: Tensor = args[0]
    axis = (args[1] if len(args) > 1 else kwargs.get("dim", -1)) % data.ndim
    halves = data.chunk(2, axis)
    operands = []
    for place, half in enumerate(halves):
        own = tuple(
            compact(layer.narrow(axis, place * half.shape[axis], half.shape[axis]))
            for layer in tracer.labels.layers(data)
        )
        operands.append(Operand(own, tracer.labels.own_axes(data)))
    for layer in tracer.labels.layers(data):
        if axis in varying_axes(layer):
            hold_parts(tracer, layer, axis, halves, data)
    tracer.labels.set_layers(output, combine(tracer.ledger, operands, lambda is_zero: is_zero[0], tracer.reason))


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
        values = torch.tensor([1.7, -0.6, 0.9, -2.3])
        values = values > 0 if dtype == torch.bool else values.to(dtype)
        leaves[place] = torch.zeros_like(values) if zero else values
    args, kwargs = pytree.tree_unflatten(leaves, layout)
    kwargs = {key: value for key, value in kwargs.items() if key not in ("device", "memory_format", "layout")}
    result = func(*args, **kwargs)
    first = result[0] if isinstance(result, tuple | list) else result
    return bool((first == 0).all())
