"""The table of operators: what each does to labels, and what it makes of facts. An entry stands where its rule does.

Operators that only move data are run on the labels (`views`); element-wise ones unite what they align
(`elementwise`); layers tie their input to their weight and give their output the labels of the weight (`products`,
`normalisation`); reductions are in `reductions`, what makes new tensors in `creation`. What has no rule pins.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from amsc.structure.operators import creation, elementwise, normalisation, products, reductions, views
from amsc.structure.operators.registry import FactRule, Rule
from amsc.structure.tracing.tracer import Tracer

__all__ = ["RULES", "fact_rule_for", "rule_for"]

_PARTS = (creation, elementwise, views, reductions, products, normalisation)
RULES: dict[str, Rule] = {name: rule for part in _PARTS for name, rule in part.RULES.items()}
_FACTS: dict[str, FactRule] = {name: fact for part in _PARTS for name, fact in part.FACTS.items()}


def rule_for(func: Any) -> Rule:
    """The rule of an ATen operator such as `aten.relu.default`; one that pins if there is none."""
    name = func._schema.name.removeprefix("aten::")
    if name in RULES:
        return RULES[name]
    if name.startswith("prim::"):
        return creation.nothing
    return elementwise.elementwise if torch.Tag.pointwise in func.tags else _pin


def fact_rule_for(name: str) -> FactRule | None:
    """What the ATen operator of this name makes of facts; None if that is to be tried."""
    return _FACTS.get(name)


def _pin(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
    """An operator without a rule: what it reads stays, what it yields belongs to nothing removable."""
    tracer.pin_all((args, kwargs), "has no rule in amsc; docs/add-an-operator.md says how to write one")
    if func._schema.is_mutable:
        for leaf in {id(leaf): leaf for leaf in pytree.tree_leaves((args, kwargs, output))}.values():
            if isinstance(leaf, Tensor):
                tracer.labels.write(leaf, ())
