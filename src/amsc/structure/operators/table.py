"""What each operator does to labels.

Operators that only move data are run on the labels (`views`); element-wise ones unite what they align
(`elementwise`); layers tie their input to their weight and give their output the labels of the weight (`products`,
`normalisation`); reductions are in `reductions`. What has no rule pins.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from amsc.structure.operators import normalisation, products, reductions, views
from amsc.structure.operators.elementwise import copy_in_place, elementwise
from amsc.structure.operators.registry import Rule
from amsc.structure.tracing.tracer import Tracer

__all__ = ["RULES", "rule_for"]


def rule_for(func: Any) -> Rule:
    """The rule of an ATen operator such as `aten.relu.default`; one that pins if there is none."""
    name = func._schema.name.removeprefix("aten::")
    if name in RULES:
        return RULES[name]
    if name.startswith("prim::"):
        return _nothing
    return elementwise if torch.Tag.pointwise in func.tags else _pin


def _pin(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
    """An operator without a rule: what it reads stays, what it yields belongs to nothing removable."""
    tracer.pin_all((args, kwargs), "has no rule in amsc; docs/add-an-operator.md says how to write one")
    if func._schema.is_mutable:
        for leaf in {id(leaf): leaf for leaf in pytree.tree_leaves((args, kwargs, output))}.values():
            if isinstance(leaf, Tensor):
                tracer.labels.write(leaf, ())


def _nothing(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
    """The output holds no activation: only shapes, or positions, or a number for the user's code."""
    for leaf in pytree.tree_leaves(output):
        if isinstance(leaf, Tensor):
            tracer.labels.set_layers(leaf, ())  # so that what is written to a part of it is noticed


def _uniform(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """The output is one value everywhere; `*_like` has the channels of what it is like."""
    name = func._schema.name.removeprefix("aten::")
    is_zero = "zeros" in name or "empty" in name or ("full" in name and _filling(func, args, kwargs) == 0)
    if name.endswith("_like"):
        layers = tuple(layer.abs() if is_zero else -layer.abs() for layer in tracer.labels.layers(args[0]))
        tracer.labels.set_layers(output, layers if output.shape == args[0].shape else ())
    else:
        tracer.labels.set_layers(output, ())  # so that what is written to a part of it is noticed
    tracer.labels.set_uniform(output, is_zero=is_zero)


def _filling(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The number that fills a new tensor."""
    names = [argument.name for argument in func._schema.arguments]
    return (dict(zip(names, args, strict=False)) | kwargs)["fill_value"]


def _fill(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """One value everywhere, in place."""
    is_uniform = tracer.labels.is_uniform(output) or len(tracer.labels.layers(output)) == 0
    is_zero = func._schema.name == "aten::zero_" or (not isinstance(args[1], Tensor) and args[1] == 0)
    sign = 1 if is_zero else -1
    tracer.labels.write(output, tuple(sign * layer.abs() for layer in tracer.labels.layers(output)))
    if is_uniform:
        tracer.labels.set_uniform(output, is_zero=is_zero)


def _random(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """Random values in place of what was there: they have the channels of the tensor they fill."""
    tracer.labels.write(output, tuple(-layer.abs() for layer in tracer.labels.layers(output)))


_NOTHING = "arange randn rand scalar_tensor eye linspace _local_scalar_dense rand_like randn_like"
_UNIFORM = (
    "empty zeros ones full empty_strided new_zeros new_ones new_empty new_full new_empty_strided "
    "zeros_like ones_like empty_like full_like"
)
_RANDOM = "bernoulli_ uniform_ normal_ exponential_ random_ log_normal_ geometric_ cauchy_"
_ALSO_ELEMENTWISE = "hardswish hardswish_ _prelu_kernel masked_fill masked_fill_ log_sigmoid_forward native_dropout"

RULES: dict[str, Rule] = {
    **dict.fromkeys(_NOTHING.split(), _nothing),
    **dict.fromkeys(_UNIFORM.split(), _uniform),
    **dict.fromkeys(_ALSO_ELEMENTWISE.split(), elementwise),
    **dict.fromkeys(("fill_", "zero_"), _fill),
    **dict.fromkeys(_RANDOM.split(), _random),
    "copy_": copy_in_place,
    **views.RULES,
    **reductions.RULES,
    **products.RULES,
    **normalisation.RULES,
}
