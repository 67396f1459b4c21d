"""How labels meet: operands aligned element by element, elements combined into one, and both at once (products)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import or_

import torch
from torch import Tensor

from amsc.structure.labels.ledger import Ledger, core, varying_axes

__all__ = ["Layers", "Operand", "combine", "product_zero", "reduce", "without_implied"]

Layers = tuple[Tensor, ...]
GivesZero = Callable[[tuple[bool, ...]], bool]


@dataclass(frozen=True)
class Operand:
    """Layers of one operand, expanded to the common shape, the axes along which it has values of its own, and whether
    it is known to be zero everywhere."""

    layers: Layers
    own_axes: frozenset[int]
    is_zero: bool = False


def product_zero(is_zero: tuple[bool, ...]) -> bool:
    """A product is zero where one of its factors is."""
    return any(is_zero)


def combine(
    ledger: Ledger, operands: Sequence[Operand], gives_zero: GivesZero, reason: str, *, note_sums: bool = False
) -> Layers:
    """Layers of an element-wise function of `operands`: aligned elements live and die together.

    Layers along the same axes are united; one along fewer axes numbers the slices of the wider one; two that share
    only some axes are tied by new labels along these; layers along different axes stay apart, as in an outer product.
    `gives_zero(pattern)` tells whether the function is zero where the marked operands are. With `note_sums`, labels of
    two operands of which one alone does not silence the result are noted as summed: a residual stream.
    """
    gives_zero = _with_zeros(operands, gives_zero)
    by_axes: dict[tuple[int, ...], dict[int, Tensor]] = {}
    for number, operand in enumerate(operands):
        for layer in operand.layers:
            axes = varying_axes(layer)
            if not axes:
                ledger.pin(layer, f"{reason} meets it with a tensor all of which would go")
                continue
            mine = by_axes.setdefault(axes, {})
            if number in mine:
                ledger.unite(mine[number], core(layer), reason)
            mine.setdefault(number, core(layer))
    merged: dict[tuple[int, ...], Tensor] = {}
    for axes, cores in by_axes.items():
        merged[axes] = _merged(ledger, cores, len(operands), gives_zero, reason)
        if note_sums and len(cores) == 2:
            _note_sum(ledger, cores, len(operands), gives_zero, reason)
        _freeze_along_constants(ledger, merged[axes], axes, operands, reason)
    contributors = {axes: frozenset(cores) for axes, cores in by_axes.items()}
    return _tied(ledger, merged, contributors, reason)


def _with_zeros(operands: Sequence[Operand], gives_zero: GivesZero) -> GivesZero:
    """`gives_zero`, told as well of the operands that are zero in any case."""
    zeros = [operand.is_zero for operand in operands]
    return lambda marked: gives_zero(tuple(map(or_, marked, zeros))) if any(zeros) else gives_zero(marked)


def _merged(ledger: Ledger, cores: dict[int, Tensor], num_operands: int, gives_zero: GivesZero, reason: str) -> Tensor:
    """One layer for the layers of several operands (operand number -> layer) along the same axes."""
    numbers = sorted(cores)
    result = cores[numbers[0]].abs()
    for number in numbers[1:]:
        ledger.unite(result, cores[number], reason)
        result = torch.where(result == 0, cores[number].abs(), result)
    codes = torch.zeros_like(result)
    for number in numbers:
        codes = codes | ((cores[number] > 0).long() << number)
    signed = result.clone()
    for code in codes.unique().tolist():
        if not gives_zero(tuple(bool(code >> place & 1) for place in range(num_operands))):
            signed[codes == code] *= -1
    return signed


def _note_sum(ledger: Ledger, cores: dict[int, Tensor], num_operands: int, gives_zero: GivesZero, reason: str) -> None:
    (first, one), (_, other) = sorted(cores.items())
    if not gives_zero(tuple(number == first for number in range(num_operands))):
        ledger.sum(one[(one != 0) & (other != 0) & (one.abs() != other.abs())], reason)


def _freeze_along_constants(
    ledger: Ledger, layer: Tensor, axes: tuple[int, ...], operands: Sequence[Operand], reason: str
) -> None:
    """An operand that belongs to nothing removable but has values of its own along an axis does not follow a cut."""
    for operand in operands:
        followed = {axis for own in operand.layers for axis in varying_axes(own)}
        if constant := [axis for axis in axes if axis in operand.own_axes and axis not in followed]:
            ledger.freeze(layer, constant, f"{reason} joins it with values that stay")


def _tied(
    ledger: Ledger,
    merged: dict[tuple[int, ...], Tensor],
    contributors: dict[tuple[int, ...], frozenset[int]],
    reason: str,
) -> Layers:
    """The layers that are left when those along some axes of a wider one are said by the wider one."""
    implied = set()
    axes_of = sorted(merged, key=len)
    for place, few in enumerate(axes_of):
        for many in axes_of[place + 1 :]:
            common = set(few) & set(many)
            if not common:
                continue
            if len(common) == len(few):
                implied.add(few)
                ledger.tie(merged[many], merged[few], reason)
            elif not contributors[few] & contributors[many]:  # an operand that holds both has tied them already
                shape = [merged[few].shape[axis] if axis in common else 1 for axis in range(merged[few].ndim)]
                heads = ledger.fresh(*shape)
                ledger.tie(merged[few], heads, reason)
                ledger.tie(merged[many], heads, reason)
    return tuple(merged[axes] for axes in axes_of if axes not in implied)


def reduce(
    ledger: Ledger,
    layers: Iterable[Tensor],
    axes: Sequence[int],
    reason: str,
    *,
    takes_zeros: bool,
    zero_for_zeros: bool = True,
    folds: str = "",
) -> Layers:
    """Layers (with size 1 along `axes`) of a function that combines all elements along `axes` into one.

    `takes_zeros`: zeros among them change nothing (a sum, not a mean); `zero_for_zeros`: it is zero where all are;
    `folds`: the layer whose bias can have what is constant among them.
    What combines all elements of a slice goes with the slice.
    """
    results = []
    for layer in layers:
        small = core(layer)
        varying = varying_axes(layer)
        inner = [axis for axis in varying if axis in axes]
        ledger.read(layer, inner, reason, takes_zeros=takes_zeros, folds=folds)
        if not inner:
            results.append(small if zero_for_zeros else -small.abs())
        elif len(inner) < len(varying):
            heads = _numbered(ledger, small, inner)
            ledger.tie(small, heads, reason)
            are_zero = (small > 0).flatten().reshape(small.shape)
            for axis in inner:
                are_zero = are_zero.all(axis, keepdim=True)
            results.append(torch.where(are_zero, heads, -heads) if zero_for_zeros else -heads)
    return tuple(results)


def _numbered(ledger: Ledger, small: Tensor, inner: Sequence[int]) -> Tensor:
    """A new label for every slice of `small` along `inner`; equal slices (a head of several images) get the same."""
    outer = [axis for axis in range(small.ndim) if axis not in inner]
    slices = small.abs().permute(*outer, *inner).flatten(len(outer)).flatten(0, len(outer) - 1)
    _, which = slices.unique(dim=0, return_inverse=True)
    shape = [1 if axis in inner else size for axis, size in enumerate(small.shape)]
    return ledger.fresh(int(which.max()) + 1)[which].reshape(shape)


def without_implied(ledger: Ledger, layers: Sequence[Tensor], reason: str) -> Layers:
    """The layers but those that number the slices of a wider one: k' v of an attention has heads x features of keys
    and heads x features of values, and q (k' v) the latter alone."""
    kept = []
    for few in layers:
        wider = [many for many in layers if set(varying_axes(few)) < set(varying_axes(many))]
        for many in wider if varying_axes(few) else ():
            ledger.tie(many, few, reason)
        if not wider or not varying_axes(few):
            kept.append(few)
    return tuple(kept)
