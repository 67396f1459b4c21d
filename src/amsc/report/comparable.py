"""Which runs can be compared: those of one dense network on the same data."""

from collections.abc import Callable, Mapping
from typing import Any

from amsc.errors import DataError, ModelError
from amsc.records import Circumstances, Record
from amsc.words.amounts import TIMES, format_count, score_format

__all__ = ["check_comparable"]


def check_comparable(runs: Mapping[str, Record]) -> None:
    """Refuse runs that say nothing about each other.

    Raises:
        DataError: they are on different data, or judged by different scores.
        ModelError: they began with different networks, or their costs were counted for different inputs.
    """
    (first, one), *others = runs.items()
    for name, other in others:
        names = f"{first} and {name} cannot be compared"
        if words := _other_data(one, other):
            raise DataError(f"{names}: {words}; compare runs on the same data")
        if words := _other_network(one, other):
            raise ModelError(f"{names}: {words}; compare runs of one dense network")


def _other_data(one: Record, other: Record) -> str:
    """In what the data differ; "" if in nothing that both records know."""
    if one.data != other.data:
        return f"the first is on {one.data}, the other on {other.data}"
    if one.score_name != other.score_name:
        return f"the first is judged by {one.score_name}, the other by {other.score_name}"
    if sizes := _both(one, other, lambda about: dict(about.examples)):
        return f"the splits of {one.data} have other sizes: {_sizes(sizes[0])}; {_sizes(sizes[1])}"
    if _both(one, other, lambda about: about.fingerprints.get("data", "")):
        return f"the validation splits of {one.data} hold different examples, as those of another seed do"
    return ""


def _other_network(one: Record, other: Record) -> str:
    """In what the dense networks differ; "" if in nothing that both records know."""
    if one.before.parameters != other.before.parameters:
        counts = " and ".join(format_count(record.before.parameters) for record in (one, other))
        return f"the dense networks ({one.model}, {other.model}) have {counts} parameters"
    if shapes := _both(one, other, lambda about: about.inputs):
        return f"costs were counted for inputs of {_shapes(shapes[0])}, and of {_shapes(shapes[1])}"
    if one.before.macs != other.before.macs:
        return f"the dense networks take {one.before.macs:,} and {other.before.macs:,} multiply-adds"
    if _both(one, other, lambda about: about.fingerprints.get("network", "")):
        scores = " and ".join(score_format(one.score_name)(record.score_before) for record in (one, other))
        return f"the dense networks have different weights ({one.score_name} {scores} before)"
    return ""


def _both(one: Record, other: Record, look: Callable[[Circumstances], Any]) -> tuple[Any, Any] | None:
    """What the records say of their circumstances, if both say something, and not the same."""
    if one.about is None or other.about is None:
        return None
    ours, theirs = look(one.about), look(other.about)
    return (ours, theirs) if ours and theirs and ours != theirs else None


def _sizes(examples: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {split}" for split, number in examples.items())


def _shapes(shapes: tuple[tuple[int, ...], ...]) -> str:
    return " and ".join(f" {TIMES} ".join(map(str, shape)) for shape in shapes)
