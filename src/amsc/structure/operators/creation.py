"""Operators that make tensors, and those that overwrite all of one: no data moves."""

from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from amsc.structure.operators.registry import NUMBER_BY_NUMBER, ZEROS, FactRule, Rule, collector, filled
from amsc.structure.tracing.tracer import Tracer

__all__ = ["FACTS", "RULES", "nothing"]

RULES: dict[str, Rule] = {}
FACTS: dict[str, FactRule] = {}
_rule = collector(RULES, FACTS)


@_rule("arange randn rand scalar_tensor eye linspace _local_scalar_dense rand_like randn_like")
def nothing(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
    """The output holds no activation: only shapes, or positions, or a number for the user's code."""
    for leaf in pytree.tree_leaves(output):
        if isinstance(leaf, Tensor):
            tracer.labels.set_layers(leaf, ())  # so that what is written to a part of it is noticed


@_rule("zeros zeros_like new_zeros", fact=ZEROS)
@_rule("full full_like", fact=filled(1))
@_rule("new_full", fact=filled(2))
@_rule("empty ones empty_strided new_ones new_empty new_empty_strided ones_like empty_like")
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


@_rule("fill_ zero_", fact=NUMBER_BY_NUMBER)
def _fill(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """One value everywhere, in place."""
    is_uniform = tracer.labels.is_uniform(output) or len(tracer.labels.layers(output)) == 0
    is_zero = func._schema.name == "aten::zero_" or (not isinstance(args[1], Tensor) and args[1] == 0)
    sign = 1 if is_zero else -1
    tracer.labels.write(output, tuple(sign * layer.abs() for layer in tracer.labels.layers(output)))
    if is_uniform:
        tracer.labels.set_uniform(output, is_zero=is_zero)


@_rule("bernoulli_ uniform_ normal_ exponential_ random_ log_normal_ geometric_ cauchy_")
def _random(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """Random values in place of what was there: they have the channels of the tensor they fill."""
    tracer.labels.write(output, tuple(-layer.abs() for layer in tracer.labels.layers(output)))
