"""Convolutions and matrix products: channels meet along the axis that is summed over, and belong to the axes that stay.

Every product is written in letters, as einsum does it: both operands are laid out along all letters, multiplied
element by element and summed over the letters that are not in the output.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from amsc.structure.labels.combine import Layers, Operand, combine, product_zero, reduce, without_implied
from amsc.structure.labels.ledger import Grouped, Work, compact, core, squeezed, varying_axes
from amsc.structure.operators.registry import FactRule, Rule, collector, product
from amsc.structure.tracing.tracer import Tracer

__all__ = ["FACTS", "RULES"]

RULES: dict[str, Rule] = {}
FACTS: dict[str, FactRule] = {}
_rule = collector(RULES, FACTS)


@dataclass(frozen=True)
class _Factor:
    """One factor of a product: a tensor, the letters of its axes, and its layers."""

    tensor: Tensor
    letters: str
    layers: Layers
    own_axes: frozenset[int]


@_rule("mm", fact=product(0, 1))
def _mm(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """data @ weight."""
    tracer.labels.set_layers(output, _product(tracer, args[0], "ik", args[1], "kj", "ij"))


@_rule("addmm", fact=product(1, 2, plus=0))
def _addmm(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """bias + data @ weight, as linear layers write it."""
    layers = _product(tracer, args[1], "ik", args[2], "kj", "ij")
    tracer.labels.set_layers(output, _with_bias(tracer, layers, args[0], output, axis=1))


@_rule("bmm", fact=product(0, 1))
def _bmm(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """A batch of matrix products."""
    tracer.labels.set_layers(output, _product(tracer, args[0], "bik", args[1], "bkj", "bij"))


@_rule("baddbmm", fact=product(1, 2, plus=0))
def _baddbmm(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """The same with something added (unless beta is 0)."""
    layers = _product(tracer, args[1], "bik", args[2], "bkj", "bij")
    if kwargs.get("beta", 1) != 0:
        shaped = tuple(layer.expand(output.shape) for layer in layers)
        operands = [Operand(shaped, frozenset(range(3))), tracer.labels.operand(args[0], output.shape)]
        layers = combine(tracer.ledger, operands, all, tracer.reason)
    tracer.labels.set_layers(output, layers)


@_rule("mv", fact=product(0, 1))
def _mv(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """matrix @ vector."""
    tracer.labels.set_layers(output, _product(tracer, args[0], "ik", args[1], "k", "i"))


@_rule("dot", fact=product(0, 1))
@_rule("vdot")
def _dot(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """vector @ vector."""
    tracer.labels.set_layers(output, _product(tracer, args[0], "k", args[1], "k", ""))


@_rule("addmv", fact=product(1, 2, plus=0))
def _addmv(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """bias + matrix @ vector."""
    layers = _product(tracer, args[1], "ik", args[2], "k", "i")
    tracer.labels.set_layers(output, _with_bias(tracer, layers, args[0], output, axis=0))


def _product(tracer: Tracer, left: Tensor, left_letters: str, right: Tensor, right_letters: str, output: str) -> Layers:
    """Layers of the product along the letters of `output`."""
    factors = _factors(tracer, left, left_letters, right, right_letters, output)
    letters = output + "".join(sorted(set(left_letters + right_letters) - set(output)))
    sizes = {letter: size for f in factors for letter, size in zip(f.letters, f.tensor.shape, strict=True)}
    operands = [_laid_out(factor, letters, sizes) for factor in factors]
    met = combine(tracer.ledger, operands, product_zero, tracer.reason)
    summed = [place for place, letter in enumerate(letters) if letter not in output]
    _note_work(tracer, factors, letters, met, prod(sizes.values()))
    whole = tuple(compact(layer.expand([sizes[letter] for letter in letters])) for layer in met)
    reason = f"{tracer.reason} reads it after a non-zero constant"
    folds = next(filter(None, (tracer.folds(factor.tensor) for factor in factors)), "")
    layers = reduce(tracer.ledger, whole, summed, reason, takes_zeros=True, folds=folds)
    if all(tracer.parameters.view(factor.tensor) is None for factor in factors):
        _note_heads(tracer, layers, output)
    layers = without_implied(tracer.ledger, layers, tracer.reason)
    return tuple(layer.reshape(layer.shape[: len(output)]) for layer in layers)


def _factors(
    tracer: Tracer, left: Tensor, left_letters: str, right: Tensor, right_letters: str, output: str
) -> tuple[_Factor, _Factor]:
    """Both factors; of a parameter the axes that stay are produced ("out"), those summed over are read ("in")."""
    views = [tracer.parameters.view(left), tracer.parameters.view(right)]
    is_weight = [views[0] is not None and views[1] is None, views[1] is not None]
    meets_data = tracer.parameters.is_activation(left) or tracer.parameters.is_activation(right)
    factors = []
    for tensor, letters, view, weight in zip(
        (left, right), (left_letters, right_letters), views, is_weight, strict=True
    ):
        if view is not None and weight:
            roles = ["out" if letter in output else "in" for letter in letters]
            layers = tracer.parameters.layers(tensor, *view, roles)
        else:
            layers = tracer.labels.layers(tensor)
            if meets_data and tracer.parameters.is_computed(tensor):
                _note_computed(tracer, layers, [axis for axis, letter in enumerate(letters) if letter not in output])
        factors.append(_Factor(tensor, letters, layers, tracer.labels.own_axes(tensor)))
    return factors[0], factors[1]


def _note_computed(tracer: Tracer, layers: Layers, axes: Sequence[int]) -> None:
    """Where a weight is computed, what is left of it may depend on what goes from the axes it is read along."""
    for layer in layers:
        tracer.ledger.read(layer, axes, f"the weight of {tracer.reason} is computed from it", takes_zeros=False)


def _laid_out(factor: _Factor, letters: str, sizes: dict[str, int]) -> Operand:
    """A factor with one axis for every letter."""
    order = [factor.letters.index(letter) for letter in letters if letter in factor.letters]
    places = [place for place, letter in enumerate(letters) if letter in factor.letters]
    shape = [sizes[letter] for letter in letters]
    layers = []
    for layer in factor.layers:
        small = core(layer).permute(order)
        new = [1] * len(letters)
        for place, size in zip(places, small.shape, strict=True):
            new[place] = size
        layers.append(compact(small.reshape(new).expand(shape)))
    own = {letters.index(factor.letters[axis]) for axis in factor.own_axes}
    return Operand(tuple(layers), frozenset(own))


def _note_work(tracer: Tracer, factors: Sequence[_Factor], letters: str, met: Layers, macs: int) -> None:
    along: dict[str, tuple[str, int]] = {}
    for factor in factors:
        view = tracer.parameters.view(factor.tensor)
        if view is not None:
            along |= {letter: (view[0].name, axis) for letter, axis in zip(factor.letters, view[1], strict=True)}
    left = {place for place, letter in enumerate(letters) if letter not in along}
    arrays = []
    for layer in met:  # what shares a letter with another (the heads of linear attention) would be counted twice
        if varying_axes(layer) and left.issuperset(varying_axes(layer)):
            left -= set(varying_axes(layer))
            arrays.append(squeezed(layer))
    tracer.ledger.work.append(Work(tracer.module, macs, tuple(along.values()), tuple(arrays)))


def _note_heads(tracer: Tracer, layers: Layers, output: str) -> None:
    """In a batch of products of activations the channels along the batch are heads."""
    for layer in layers:
        if "b" in output and varying_axes(layer) == (output.index("b"),):
            tracer.ledger.head(layer, tracer.reason)


def _with_bias(tracer: Tracer, layers: Layers, bias: Tensor | None, output: Tensor, *, axis: int) -> Layers:
    """`layers` after adding `bias`, which runs along `axis` (or broadcasts to `output`)."""
    whole = tuple(compact(layer.expand(output.shape)) for layer in layers)
    if bias is None:
        return whole
    view = tracer.parameters.view(bias)
    own = tracer.parameters.layers(bias, *view, ["out"] * bias.ndim) if view is not None else tracer.labels.layers(bias)
    shape = [1] * output.ndim
    shape[axis] = -1
    placed = own if bias.ndim != 1 else tuple(core(layer).reshape(shape) for layer in own)
    spread = tuple(compact(layer.expand(output.shape)) for layer in placed)
    own_axes = frozenset([axis]) if bias.ndim == 1 and tracer.labels.own_axes(bias) else tracer.labels.own_axes(bias)
    operands = [Operand(whole, frozenset(range(output.ndim))), Operand(spread, own_axes)]
    return combine(tracer.ledger, operands, all, tracer.reason)


# -- convolutions ------------------------------------------------------------------------------------------------------


@_rule("convolution", fact=product(0, 1, plus=2))
@_rule("_convolution")
def _convolution(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """Input channels go with the weight's input axis, output channels with its output axis; of a grouped or
    depthwise convolution only whole groups can go, with their inputs."""
    data, weight, bias = args[:3]
    transposed, groups = bool(args[6]), int(args[8])
    outside = prod(data.shape[2:] if transposed else output.shape[2:]) * data.shape[0]
    channels = tracer.labels.channels(data)
    if data.ndim != weight.ndim:
        tracer.pin_all((data, weight, bias), "reads one input without a batch")
        return
    read, written = (0, 1) if transposed else (1, 0)
    roles = [""] * weight.ndim
    roles[0], roles[1] = ("in", "out") if transposed and groups == 1 else ("out", "in")
    along = _weight_axes(tracer, weight, roles)
    _note_convolution(tracer, weight, along, outside)
    if groups > 1 and transposed:
        produced: Layers = _grouped_transposed(tracer, channels, along, output.shape[1], groups)
    elif groups > 1:
        view = tracer.parameters.view(weight)
        produced = _grouped(tracer, channels, along, groups, "" if view is None else view[0].name)
    else:
        met = combine(tracer.ledger, [channels, _operand(along[read])], product_zero, tracer.reason)
        reason = f"{tracer.reason} reads it after a non-zero constant"
        reduce(tracer.ledger, met, [0], reason, takes_zeros=True, folds=tracer.folds(weight))
        produced = _operand(along[written]).layers
    shape = [1] * output.ndim
    shape[1] = -1
    layers = tuple(layer.reshape(shape) for layer in produced)
    tracer.labels.set_layers(output, _with_bias(tracer, layers, bias, output, axis=1))


def _operand(labels: Tensor) -> Operand:
    return Operand((compact(labels),), frozenset([0])) if bool((labels != 0).any()) else Operand((), frozenset([0]))


def _weight_axes(tracer: Tracer, weight: Tensor, roles: Sequence[str]) -> list[Tensor]:
    """Labels along the first two axes of a weight; what else is labelled in a computed weight stays."""
    view = tracer.parameters.view(weight)
    layers = tracer.parameters.layers(weight, *view, roles) if view is not None else tracer.labels.layers(weight)
    if tracer.parameters.is_computed(weight):
        _note_computed(tracer, layers, [roles.index("in")])
    along = [torch.zeros(size, dtype=torch.int64) for size in weight.shape[:2]]
    for layer in layers:
        varying = varying_axes(layer)
        if varying in ((0,), (1,)) and not bool((along[varying[0]] != 0).any()):
            along[varying[0]] = core(layer).reshape(-1)
        else:
            tracer.ledger.pin(layer, f"{tracer.reason} has a weight that is not made of whole channels")
    return along


def _note_convolution(tracer: Tracer, weight: Tensor, along: Sequence[Tensor], outside: int) -> None:
    view = tracer.parameters.view(weight)
    macs = outside * weight.numel()
    if view is not None:
        view[0].is_convolution = True
        axes = tuple((view[0].name, axis) for axis in view[1])
        tracer.ledger.work.append(Work(tracer.module, macs, axes))
    else:
        tracer.ledger.work.append(Work(tracer.module, macs, (), tuple(x for x in along if bool((x != 0).any()))))


def _grouped(tracer: Tracer, channels: Operand, along: Sequence[Tensor], groups: int, name: str) -> Layers:
    """Layers of the output channels of a grouped convolution; `name` is its weight's, "" of one that is computed."""
    reason = f"the grouping of {tracer.reason}"
    made = along[0].reshape(groups, -1)
    read = core(channels.layers[0]).reshape(groups, -1) if channels.layers else None
    for layer in channels.layers[1:]:
        tracer.ledger.unite(layer, channels.layers[0], reason)
    if read is not None:
        flat = compact(read.reshape(-1))
        tracer.ledger.read(flat, [0], f"{tracer.reason} reads it after a non-zero constant", takes_zeros=True)
    tracer.ledger.note_grouped(Grouped(read, along[1], made, reason, name))
    return (compact(made.reshape(-1)),)


def _grouped_transposed(
    tracer: Tracer, channels: Operand, along: Sequence[Tensor], num_out: int, groups: int
) -> Layers:
    """The same where the weight is (in, out / groups, ...): its second axis is shared by all groups, so that whole
    groups of outputs follow their inputs."""
    ledger, reason = tracer.ledger, f"the grouping of {tracer.reason}"
    ledger.pin(along[1], f"{reason}, all of whose groups share it")
    own = along[0].reshape(groups, -1)
    read = channels.layers[0].reshape(groups, -1) if channels.layers else torch.zeros_like(own[:, :1])
    ledger.unite(read[:, :1], read, reason)
    ledger.unite(own[:, :1], own, reason)
    ledger.unite(read[:, :1], own[:, :1], reason)
    ledger.read(compact(read.reshape(-1)), [0], f"{tracer.reason} reads it after a non-zero constant", takes_zeros=True)
    return (compact(own[:, :1].expand(groups, num_out // groups).reshape(-1)),)
