"""What a network may cost and lose, as it is typed: shares of the dense network, or amounts with their unit."""

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from amsc.errors import TargetError, UnknownTargetError
from amsc.limits.clock import CLOCKS, Clock
from amsc.words.arguments import answers_typos
from amsc.words.nearest import nearest
from amsc.words.page import Page
from amsc.words.shown import Shown

__all__ = ["COSTS", "Amount", "Target", "describe_target", "format_target", "parse_target"]

_COUNT = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_BYTES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}

# What a network costs -> (the units in which an amount of it can be said, an example, what it is called)
COSTS: Mapping[str, tuple[Mapping[str, float], str, str]] = {
    "macs": (_COUNT, "20M", "MACs"),
    "params": (_COUNT, "100k", "parameters"),
    "bytes": (_BYTES, "400kB", "bytes of parameters and buffers"),
    "latency": (_SECONDS, "5ms", "seconds of latency"),
    "memory": (_BYTES, "10MB", "bytes of peak memory"),
}
_WORDS_ON_FREE = (
    "free is no budget, the smallest network that loses nothing is looked for; it stands alone, and cannot be said "
    "together with {}; leave one of them out"
)
_SMALLEST_BARE = 1000
"""A number without a unit is an amount from here on: below, a percentage was probably meant."""


@dataclass(frozen=True)
class Amount:
    """A limit on one cost: `number` is a share of what the dense network costs, or is in multiply-adds, parameters,
    bytes or seconds; these are counted in a `runtime`."""

    number: float
    is_share: bool
    runtime: str = "torch"

    def of(self, dense: float) -> float:
        """The limit for a dense network that costs so much."""
        return self.number * dense if self.is_share else self.number


@answers_typos(UnknownTargetError)
@dataclass(frozen=True, repr=False)
class Target(Shown):
    """The budget. All that is said must be met; at least one thing must be.

    `macs`, `params`, `bytes`, `latency` and `memory` are shares of what the dense network costs (0 < share < 1), or
    amounts with their unit as text: "20M", "100k", "400kB", "5ms", "10MB". A number of 1000 or more is an amount too
    (multiply-adds, parameters, bytes; not seconds); one between 1 and 1000 is refused, since it could be meant in
    percent as well. Latency and memory are those of one call on the example inputs, on the machine the run is on;
    "60%@onnxruntime" and "5ms@onnxruntime" are latencies in that runtime, to which every network that is timed is
    exported. `drop` is how far the score on the validation split may fall
    short of the dense network's after fine-tuning; the smallest network of the path that keeps to it is looked for. Of
    a score that is a share, such as accuracy, 0.01 or "1%" is one point; of any other, such as a loss, a number in its
    own units. `Target.free()` is no budget: as small as it goes for nothing.

        Target(macs=0.5)    Target(params="100k")    Target(latency=0.6, drop="1%")    Target.free()

    Raises:
        TargetError: nothing is said, or something impossible, or (`UnknownTargetError`) something that is no cost.
    """

    macs: float | str | None = None
    params: float | str | None = None
    bytes: float | str | None = None
    latency: float | str | None = None
    memory: float | str | None = None
    drop: float | str | None = None
    is_free: bool = False

    @classmethod
    def free(cls) -> "Target":
        """No budget: the smallest network whose score on the validation split is within one paired standard error of
        that of the best, as the paper chooses its strengths. It is looked for before fine-tuning, among networks of
        ever fewer multiply-adds that are not trained: `path_epochs`, `path_points` and `depth_rule` are not used."""
        return cls(is_free=True)

    def __post_init__(self) -> None:
        said = _said(self)
        if not said:
            raise TargetError(f"expected a target, such as macs=50%; got none of {', '.join((*COSTS, 'drop'))}, free")
        if self.is_free and len(said) > 1:
            raise TargetError(_WORDS_ON_FREE.format(" and ".join(name for name in said if name != "is_free")))
        for cost in COSTS:
            if cost in said:
                _amount(cost, said[cost])
        if self.drop is not None:
            _drop(self.drop)

    @property
    def most_lost(self) -> float | None:
        """How far the score may fall, as a number."""
        return None if self.drop is None else _drop(self.drop)

    def page(self) -> Page:
        """What is asked for, as it can be typed."""
        return Page(format_target(self))

    def in_a_line(self) -> str:
        """What is said, as arguments."""
        return ", ".join(f"{name}={value!r}" for name, value in _said(self).items())

    @property
    def runtime(self) -> str:
        """Where latency is measured."""
        return self.limits["latency"].runtime if "latency" in self.limits else "torch"

    @property
    def clock(self) -> Clock:
        """What measures latency there."""
        return CLOCKS[self.runtime]

    @property
    def limits(self) -> dict[str, Amount]:
        """The limits on costs, by what they limit."""
        return {name: _amount(name, value) for name, value in _said(self).items() if name in COSTS}


def parse_target(text: str) -> Target:
    """The target that a text such as "macs=50%", "params=100k", "latency=5ms, drop=1%" or "free" says.

    Raises:
        TargetError: the text is not of that form, names something else, or leaves nothing or everything.
    """
    known = (*COSTS, "drop")
    said: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if name == "free" and not equals and "is_free" not in said:
            said["is_free"] = True
            continue
        if name not in known or not equals or name in said:
            twice = f"; {name} is said twice" if name in said else nearest(name, (*known, "free"))
            raise TargetError(f"expected a target such as macs=50% or macs=0.5, got {text!r}{twice}")
        said[name] = _typed_drop(value) if name == "drop" else _typed(name, value)
    return Target(**said)


def format_target(target: Target) -> str:
    """The text that `parse_target` reads back as a target that means the same."""
    return "free" if target.is_free else ", ".join(f"{name}={value}" for name, value in _said(target).items())


def describe_target(target: Target, score: str, *, is_share: bool) -> str:
    """The text for people, who want to know what a drop is counted in."""
    text = format_target(target)
    return text if target.drop is None or is_share else f"{text} (in units of the {score})"


def _said(target: Target) -> dict[str, Any]:
    """What a target says, by the name of the field."""
    values = {field.name: getattr(target, field.name) for field in dataclasses.fields(target)}
    return {name: value for name, value in values.items() if value is not None and value is not False}


def _drop(value: Any) -> float:
    """How far the score may fall, from a number or a text such as "1%"."""
    match = re.fullmatch(r"(\d*\.?\d+(?:[eE]-?\d+)?)\s*(%?)", value.strip()) if isinstance(value, str) else None
    number = float(match[1]) / (100 if match[2] else 1) if match else value
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number < math.inf:
        raise TargetError(
            f"drop: expected how far the score may fall, 0 or more, such as drop=1% or drop=0.01; got {value!r}"
        )
    return float(number)


def _typed_drop(text: str) -> float | str:
    """A percentage as the text that it is: of a loss there is none."""
    return text if text.endswith("%") else _drop(text)


def _typed(cost: str, value: str) -> float | str:
    """A share as a number, an amount as the text that it is."""
    amount = _amount(cost, value)
    return amount.number if amount.is_share and amount.runtime == "torch" else value


def _amount(cost: str, value: Any) -> Amount:
    """What `value` says, a number or a text."""
    units, example, words = COSTS[cost]
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TargetError(f"{cost}: expected a share such as 0.5, or text such as '{example}'; got {value!r}")
    text, at, runtime = str(value).strip().replace("µ", "u").partition("@")
    runtime = _runtime(cost, value, runtime.strip()) if at else "torch"
    match = re.fullmatch(r"(-?\d*\.?\d+(?:[eE]-?\d+)?)\s*([%\w]*)", text.strip())
    if match is None or match[2] not in ("", "%", *units):
        known = f"; units of {cost} are {', '.join(units)}" if match is not None else ""
        raise TargetError(
            f"expected a share of the dense network's {words} such as {cost}=50% or {cost}=0.5, or an amount such as "
            f"{cost}={example}; got '{cost}={value}'{known}"
        )
    number, unit = float(match[1]), match[2]
    if unit in units and number > 0:
        return Amount(number * units[unit], is_share=False, runtime=runtime)
    if not unit and cost != "latency" and number >= _SMALLEST_BARE:
        return Amount(number, is_share=False)
    share = number / 100 if unit == "%" else number
    if not 0 < share < 1:
        more = ", more than it costs" if share > 1 else ""
        hint = (
            f"for {value} percent of them write {cost}={value}% or {cost}={number / 100:g}"
            if not unit and 1 < number < 100
            else ""
        )
        raise TargetError(
            f"expected a target above 0 % and below 100 % of the dense network's {words}, got {cost}={value}, which is "
            f"{100 * share:.6g} %{more}; {hint or f'for half of them write {cost}=50% or {cost}=0.5'}"
        )
    return Amount(share, is_share=True, runtime=runtime)


def _runtime(cost: str, value: Any, name: str) -> str:
    """The name of a runtime, once it is known that one can be said here."""
    if cost != "latency" or name not in CLOCKS:
        words = f"; runtimes are {', '.join(CLOCKS)}{nearest(name, CLOCKS)}" if cost == "latency" else ""
        raise TargetError(
            f"expected a latency in a runtime, such as latency=60%@onnxruntime; got '{cost}={value}'{words}"
        )
    return name
