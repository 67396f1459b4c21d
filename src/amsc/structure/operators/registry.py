"""What a rule is, and how a module of rules collects its own."""

from collections.abc import Callable
from typing import Any

from amsc.structure.tracing.tracer import Tracer

__all__ = ["Rule", "collector"]

Rule = Callable[[Tracer, Any, tuple[Any, ...], dict[str, Any], Any], None]
"""(tracer, operator, arguments, keyword arguments, output)."""


def collector(rules: dict[str, Rule]) -> Callable[..., Callable[[Rule], Rule]]:
    """A decorator that enters a rule into `rules` under the names of ATen operators."""

    def rule(*names: str) -> Callable[[Rule], Rule]:
        def register(function: Rule) -> Rule:
            for name in names:
                rules.update(dict.fromkeys(name.split(), function))
            return function

        return register

    return rule
