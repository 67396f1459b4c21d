"""The frontier of a scan as rows of text, with a bar for what each structure is predicted to cost."""

import math

from amsc.records import ScanPoint, ScanRecord
from amsc.report.tables import format_count, format_seconds, score_format

__all__ = ["SCAN_COLUMNS", "scan_columns", "scan_lines", "scan_rows"]

BAR = 24
SCAN_COLUMNS = ("MACs", "share", "parameters", "blocks", "channels", "predicted loss", "")


def scan_columns(record: ScanRecord) -> tuple[str, ...]:
    """The names of what `scan_rows` gives: `SCAN_COLUMNS`, then what else was looked at."""
    columns: tuple[str, ...] = SCAN_COLUMNS
    if _has_scores(record):
        columns += (f"{record.score_name}, as cut", "BatchNorm anew")
    return (*columns, "latency") if _has_latencies(record) else columns


def scan_rows(record: ScanRecord) -> tuple[tuple[str, ...], ...]:
    """A row for each point of the frontier, the dense network first."""
    highest = max((point.predicted_increase for point in record.points), default=0.0)
    return tuple(_row(record, point, highest) for point in record.points)


def scan_lines(record: ScanRecord) -> tuple[str, ...]:
    """The same as lines of aligned text under a heading."""
    table = [scan_columns(record), *scan_rows(record)]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    bar = SCAN_COLUMNS.index("")
    lines = (
        "  ".join(
            cell.ljust(w) if i == bar else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    )
    return (f"{record.model} on {record.data}: what a scan proposes, nothing is trained", *map(str.rstrip, lines))


def _row(record: ScanRecord, point: ScanPoint, highest: float) -> tuple[str, ...]:
    cells: tuple[str, ...] = (
        format_count(point.macs),
        f"{point.macs / record.points[0].macs:.1%}",
        format_count(point.parameters),
        str(point.blocks_left),
        str(point.channels_left),
        f"{point.predicted_increase:+.3g}",
        _bar(point.predicted_increase, highest),
    )
    if _has_scores(record):
        cells += (_score(record, point.score), _score(record, point.score_reestimated))
    return (*cells, _latency(point)) if _has_latencies(record) else cells


def _bar(value: float, highest: float) -> str:
    return "█" * max(0, math.ceil(BAR * value / highest)) if highest > 0 and math.isfinite(value) else ""


def _score(record: ScanRecord, score: float | None) -> str:
    if score is None:
        return "-"
    return score_format(record.score_name)(score)


def _latency(point: ScanPoint) -> str:
    if point.latency_seconds is None or point.latency_spread_seconds is None:
        return "-"
    return f"{format_seconds(point.latency_seconds)} ± {format_seconds(point.latency_spread_seconds)}"


def _has_scores(record: ScanRecord) -> bool:
    return any(point.score is not None for point in record.points)


def _has_latencies(record: ScanRecord) -> bool:
    return any(point.latency_seconds is not None for point in record.points)
