"""The rows that a report and a terminal show, from a record alone; nothing here knows how they are drawn."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from amsc.records import Measurement, Record

__all__ = [
    "SHARES",
    "GroupRow",
    "Row",
    "before_after",
    "format_bytes",
    "format_count",
    "format_score",
    "format_seconds",
    "group_rows",
    "score_format",
]

SHARES = ("accuracy", "mean IoU")
"""Scores that are shares, and shown in percent."""


@dataclass(frozen=True)
class Row:
    """One quantity before and after as text; `change` is relative for costs and in points for scores."""

    name: str
    before: str
    after: str
    change: str


@dataclass(frozen=True)
class GroupRow:
    """How many channels went from one group, and which (indices in the dense network)."""

    name: str
    count: int
    indices: str


def before_after(record: Record) -> tuple[Row, ...]:
    """The table of the record: score, parameters, bytes, MACs, latency, memory, blocks and channels."""
    before, after = record.before, record.after
    return (
        _score_row(record),
        _cost_row("parameters", before.parameters, after.parameters, format_count),
        _cost_row("size", before.bytes, after.bytes, format_bytes),
        _cost_row("MACs", before.macs, after.macs, format_count),
        Row("latency", _latency(before), _latency(after), _relative(before.latency_seconds, after.latency_seconds)),
        _cost_row("peak memory", before.peak_memory_bytes, after.peak_memory_bytes, format_bytes),
        _left_row("removable blocks", record.blocks_before, record.blocks_before - len(record.removed_blocks)),
        _left_row("removable channels", record.channels_before, _channels_left(record)),
    )


def _score_row(record: Record) -> Row:
    before, after = record.score_before, record.score_after
    name = f"{record.score_name} (test)"
    if record.score_name not in SHARES:
        return Row(name, f"{before:.4g}", f"{after:.4g}", f"{after - before:+.3g}")
    change = f"{(after - before) * 100:+.2f} points" if math.isfinite(after - before) else "-"
    return Row(name, format_score(before), format_score(after), change)


def _cost_row(name: str, before: int, after: int, write: Callable[[float], str]) -> Row:
    return Row(name, write(before), write(after), _relative(before, after))


def _left_row(name: str, total: int, left: int) -> Row:
    return Row(name, str(total), str(left), str(left - total))


def _channels_left(record: Record) -> int:
    """With removed blocks their channels go too, which the end of the path knows; without a path, at least those
    removed alone are known."""
    if record.path:
        return record.path[-1].channels_left
    return record.channels_before - sum(len(indices) for indices in record.removed_channels.values())


def _latency(cost: Measurement) -> str:
    return f"{format_seconds(cost.latency_seconds)} ± {format_seconds(cost.latency_spread_seconds)}"


def _relative(before: float, after: float) -> str:
    return f"{(after - before) / before:+.1%}" if before else "-"


def format_score(score: float) -> str:
    """A share such as an accuracy in percent."""
    return f"{score:.2%}" if math.isfinite(score) else "-"


def score_format(name: str) -> Callable[[float], str]:
    """How a score of that name is written: in percent if it is a share."""
    return format_score if name in SHARES else "{:.4g}".format


def format_count(number: float) -> str:
    """A count with three or four figures and K, M, G or T."""
    for factor, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "K")):
        if number >= factor:
            return f"{number / factor:.4g} {unit}"
    return f"{number:.4g}"


def format_bytes(number: float) -> str:
    """Bytes in B, KiB, MiB or GiB."""
    for factor, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if number >= factor:
            return f"{number / factor:.4g} {unit}"
    return f"{number:.4g} B"


def format_seconds(seconds: float) -> str:
    """A duration in the unit that reads best, from microseconds to minutes."""
    if seconds >= 90:
        return f"{seconds / 60:.1f} min"
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def group_rows(record: Record) -> tuple[GroupRow, ...]:
    """For each group that lost channels: how many and which, runs of indices as "3-7"."""
    return tuple(
        GroupRow(name, len(indices), _ranges(indices)) for name, indices in record.removed_channels.items() if indices
    )


def _ranges(indices: tuple[int, ...]) -> str:
    runs: list[list[int]] = []
    for index in sorted(indices):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
