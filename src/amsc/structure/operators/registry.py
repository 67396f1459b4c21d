"""What an entry of the table of operators says, and how a module of rules collects its own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from amsc.structure.tracing.tracer import Tracer

__all__ = ["AVERAGE", "NUMBER_BY_NUMBER", "POSITIVE", "ZEROS", "FactRule", "Rule", "collector", "filled", "product"]

Rule = Callable[[Tracer, Any, tuple[Any, ...], dict[str, Any], Any], None]
"""What an operator does to labels: (tracer, operator, arguments, keyword arguments, output)."""


@dataclass(frozen=True)
class FactRule:
    """What an operator makes of facts, such as that an operand is zero (see `amsc.structure.blocks.facts`); one without
    is run on a few numbers or zeros to see.

    `kind`: "product" (zero if one of its `factors` is, and its `addend`), "average" (zero where its operands are, and
    not negative where these are not), "positive" (never negative), "number by number" (element-wise, although torch
    does not say so), "zeros" (it makes zeros) or "filled" (with the number at the place `addend`). Places are those
    among the arguments."""

    kind: Literal["product", "average", "positive", "number by number", "zeros", "filled"]
    factors: tuple[int, ...] = ()
    addend: int | None = None


AVERAGE, POSITIVE, NUMBER_BY_NUMBER = FactRule("average"), FactRule("positive"), FactRule("number by number")
ZEROS = FactRule("zeros")


def product(*factors: int, plus: int | None = None) -> FactRule:
    """A product of the arguments at these places, to which the one at the place `plus` is added."""
    return FactRule("product", factors, plus)


def filled(place: int) -> FactRule:
    """A new tensor filled with the argument at this place."""
    return FactRule("filled", addend=place)


def collector(rules: dict[str, Rule], facts: dict[str, FactRule]) -> Callable[..., Callable[[Rule], Rule]]:
    """A decorator that enters a rule into `rules`, and what it makes of facts into `facts`, under the names of ATen
    operators."""

    def rule(names: str, *, fact: FactRule | None = None) -> Callable[[Rule], Rule]:
        def register(function: Rule) -> Rule:
            rules.update(dict.fromkeys(names.split(), function))
            if fact is not None:
                facts.update(dict.fromkeys(names.split(), fact))
            return function

        return register

    return rule
