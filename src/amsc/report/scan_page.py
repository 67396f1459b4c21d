"""The frontier of a scan as one self-contained page, drawn as the report of a run is."""

import math
from collections.abc import Iterator
from typing import Any

from amsc.records import ScanPoint, ScanRecord
from amsc.report.html import page
from amsc.report.scan_table import (
    SCAN_COLUMNS,
    asked_words,
    by_network,
    grown,
    is_reconstructed,
    predicted,
    scan_columns,
    scan_remarks,
    scan_rows,
)
from amsc.words.amounts import SHARES, format_count, format_seconds, score_format

__all__ = ["render_scan", "scan_figures"]

SCRIPTS = ("base.js", "choosing.js", "scan.js", "controls.js")
PHASES = {"width": "as cut", "depth": "BatchNorm anew", "finetune": "reconstructed"}
"""In which colour and form what is drawn: the page knows them by the phases of a run."""
Plain = dict[str, Any]


def render_scan(record: ScanRecord) -> str:
    """The page for `record` as text; the same record gives the same page. Everything is escaped."""
    drawn = scan_figures(record)
    columns, rows = _table(record)
    dense = record.points[0]
    return page(
        "scan.html.j2",
        f"amsc scan: {record.model}",
        drawn,
        SCRIPTS,
        record=record,
        drawn=drawn,
        network=f"{format_count(dense.parameters)} parameters, {format_count(dense.macs)} MACs; "
        f"{dense.blocks_left} blocks and {dense.channels_left} channels can go",
        columns=columns,
        rows=rows,
        remarks=[f"{remark[0].upper()}{remark[1:]}." for remark in scan_remarks(record)],
        networks=[points[0] for points in by_network(record)],
        is_reconstructed=is_reconstructed(record),
        kinds=lambda rows: [(phase, PHASES[phase]) for phase in PHASES if any(r["phase"] == phase for r in rows)],
        lowest=math.floor(1000 * min((one["share"] for one in drawn["path"]), default=0.0)) / 10,
        how=_how(record),
    )


def scan_figures(record: ScanRecord) -> Plain:
    """The data of the charts: the networks of which the loss is known, the dearest first, and a row for each mark.

    The increase of the loss is that which was seen, or else the predicted one where the model holds."""
    groups = [(record.points[0],), *by_network(record)]
    known = [points for points in groups if _as_cut(points[0]) is not None]
    path = [_network(record, number, points) for number, points in enumerate(known)]
    return {
        "score": {"name": record.score_name, "isShare": record.score_name in SHARES},
        "path": path,
        "losses": [row for one, points in zip(path, known, strict=True) for row in _losses(one, points[0])],
        "scores": [row for one, points in zip(path, known, strict=True) for row in _scores(one, points[0])],
    }


def _network(record: ScanRecord, number: int, points: tuple[ScanPoint, ...]) -> Plain:
    """One network; `loss` and `score` say where it is ringed: at the best that is known of it."""
    point, dense = points[0], record.points[0]
    scores = (point.score_reconstructed, point.score_reestimated, point.score)
    return {
        "number": number,
        "name": "dense" if number == 0 else f"macs={asked_words(points)}",
        "macs": point.macs,
        "share": point.macs / dense.macs if dense.macs else 1.0,
        "loss": next(
            value for value in (_finite(point.seen_increase_reconstructed), _as_cut(point)) if value is not None
        ),
        "score": next((value for value in map(_finite, scores) if value is not None), None),
        "words": _words(record, point),
    }


def _losses(network: Plain, point: ScanPoint) -> Iterator[Plain]:
    yield from _marks(network, {"width": _as_cut(point), "finetune": point.seen_increase_reconstructed})


def _scores(network: Plain, point: ScanPoint) -> Iterator[Plain]:
    found = {"width": point.score, "depth": point.score_reestimated, "finetune": point.score_reconstructed}
    yield from _marks(network, found)


def _marks(network: Plain, values: dict[str, float | None]) -> Iterator[Plain]:
    """A mark for each value that is known; of the dense network one, as nothing was done to it."""
    for phase, value in values.items():
        if _finite(value) is not None:
            is_dense = network["number"] == 0
            place = {key: network[key] for key in ("number", "name", "share", "words")}
            yield {**place, "phase": "dense" if is_dense else phase, "value": value}
            if is_dense:
                return


def _as_cut(point: ScanPoint) -> float | None:
    is_known = point.seen_increase is not None or not point.is_beyond_model
    return _finite(grown(point)) if is_known else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _words(record: ScanRecord, point: ScanPoint) -> str:
    """A network in a line: what it costs, what it is worth, what is left of it."""
    score = score_format(record.score_name)
    share = f"{point.macs / record.points[0].macs:.1%} of the MACs" if record.points[0].macs else "no MACs"
    parts = [
        share,
        "" if point.seen_increase is None else f"loss as cut {point.seen_increase:+.3g}",
        "" if (value := point.seen_increase_reconstructed) is None else f"reconstructed {value:+.3g}",
        f"predicted loss {predicted(point)}",
        "" if point.score is None else f"{record.score_name} as cut {score(point.score)}",
        "" if (value := point.score_reestimated) is None else f"BatchNorm anew {score(value)}",
        "" if (value := point.score_reconstructed) is None else f"reconstructed {score(value)}",
        f"{point.blocks_left} blocks and {point.channels_left} channels left",
    ]
    return ", ".join(part for part in parts if part)


def _table(record: ScanRecord) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The columns and rows of the scan's table without the bar, which the chart draws."""
    bar = SCAN_COLUMNS.index("")
    columns = tuple(f">{name}" if i else name for i, name in enumerate(scan_columns(record)) if i != bar)
    return columns, [tuple(cell for i, cell in enumerate(row) if i != bar) for row in scan_rows(record)]


def _how(record: ScanRecord) -> list[tuple[str, str]]:
    """What was asked for, how long it took, and where."""
    return [
        ("dimensions", record.dimensions),
        ("weights of the gates", f"{record.currency} to the power {record.power:g}"),
        ("share of the saving that depth may take", f"{record.depth_share:g}"),
        *((f"time: {stage}", format_seconds(seconds)) for stage, seconds in record.seconds.items()),
        *((name, str(value)) for values in (record.versions, record.machine) for name, value in values.items()),
    ]
