"""The head of a report: the verdict, three numbers, and the picture of before and after."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from amsc.records import Record
from amsc.words.amounts import SHARES, TIMES
from amsc.words.loading import data_words, network_words, shape_words
from amsc.words.record import before_after, is_within_spread
from amsc.words.verdict import Cost, checks, costs, ratio_words, target_words, verdict_words

__all__ = ["CostRow", "cost_rows", "head", "heroes"]

MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class CostRow:
    """A quantity before and after, in words, and the `share` of it that is left (None where that means nothing)."""

    name: str
    before: str
    after: str
    change: str
    share: float | None


def head(record: Record) -> Mapping[str, Any]:
    """The values of the template's head, and of its table of before and after."""
    found = checks(record)
    is_met = all(check.is_met for check in found)
    return {
        "verdict": verdict_words(record),
        "verdict_class": "plain" if not found else "met" if is_met else "missed",
        "heroes": heroes(record),
        "target": target_words(record),
        "network": network_words(record),
        "about_data": data_words(record),
        "warnings": (*record.warnings, *_gaps(record)),
        "rows": cost_rows(record),
        "shapes": shape_words(record),
        "threads": _threads(record),
    }


def heroes(record: Record) -> tuple[tuple[str, str], ...]:
    """The three numbers that people look for: how much smaller, how much faster, and what it cost."""
    known = costs(record)
    value, _, unit = before_after(record)[0].change.partition(" ")
    error = record.score_error
    spread = "" if error is None else f" ± {_score_difference(record, error)}"
    return (
        _hero(known["macs"], "multiply-adds"),
        ("as fast", "latency: any change lies within its spread")
        if is_within_spread(record)
        else _hero(known["latency"], "latency"),
        (value.replace("-", MINUS), f"{spread} {unit} of {record.score_name}".strip()),
    )


def _hero(cost: Cost, name: str) -> tuple[str, str]:
    """The ratio of a cost, and what is less of it."""
    words = ratio_words(cost)
    ratio, _, less = words.partition(" ")
    if words == "the same":
        return f"1{TIMES}", f"the same {name}"
    return ratio, f"{less}{' ' + name if cost.is_count else f' ({name})'}".strip()


def _score_difference(record: Record, value: float) -> str:
    """A difference of scores without its unit: in points where the score is a share."""
    return f"{100 * value:.2f}" if record.score_name in SHARES else f"{value:.2g}"


def cost_rows(record: Record) -> tuple[CostRow, ...]:
    """The table of before and after, with what is left of each quantity as a share."""
    words = {"parameters": "params", "size": "bytes", "MACs": "macs", "latency": "latency", "peak memory": "memory"}
    known = costs(record)
    rows = []
    for row in before_after(record):
        cost = known.get(words.get(row.name.partition(" (")[0], ""))
        share = _score_left(record) if row.name == f"{record.score_name} (test)" else cost.share if cost else math.nan
        change = ratio_words(cost) if cost else row.change.replace("-", MINUS)
        rows.append(CostRow(row.name, row.before, row.after, change, share if math.isfinite(share) else None))
    return tuple(rows)


def _score_left(record: Record) -> float:
    """What is left of the score as a share; nan of one that is better the lower it is."""
    is_better = record.about is None or record.about.higher_is_better
    return record.score_after / record.score_before if is_better and record.score_before > 0 else math.nan


def _threads(record: Record) -> str:
    machine = record.after.machine
    where = machine.get("gpu") or machine.get("cpu") or machine.get("processor", "")
    threads = machine.get("threads")
    return f"{where} with {threads} thread{'s' * (threads != '1')}" if threads else where


def _gaps(record: Record) -> tuple[str, ...]:
    """What a record that was changed or damaged lacks."""
    have = {point.index for point in record.path}
    missing = [str(index) for index in range(max(have, default=-1) + 1) if index not in have]
    found = []
    if missing:
        what = f"point{'s' * (len(missing) > 1)} {', '.join(missing)}"
        found.append(f"the path lacks {what}: this record was changed by hand, or damaged")
    if any(len(layer.along_path) not in (0, len(record.path)) for layer in record.layers):
        found.append("the widths of the layers do not go with the path: they are shown before and after only")
    return tuple(found)
