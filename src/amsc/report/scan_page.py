"""The frontier of a scan as one self-contained page: no script, no font, no request to anywhere."""

import math
from importlib import resources

from jinja2 import Environment, StrictUndefined

from amsc.records import ScanPoint, ScanRecord
from amsc.report.chart import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Chart, Mark, Scale, Tick, nice_ticks
from amsc.report.scan_table import (
    SCAN_COLUMNS,
    by_network,
    grown,
    is_reconstructed,
    predicted,
    scan_columns,
    scan_remarks,
    scan_rows,
)
from amsc.words.amounts import format_count, format_seconds

__all__ = ["render_scan", "scan_chart"]

TEMPLATE = "scan.html.j2"


def render_scan(record: ScanRecord) -> str:
    """The page for `record` as text; the same record gives the same page. Everything is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(seconds=format_seconds)
    source = resources.files("amsc.report").joinpath(TEMPLATE).read_text(encoding="utf-8")
    bar = SCAN_COLUMNS.index("")
    without_bar = [tuple(cell for i, cell in enumerate(row) if i != bar) for row in scan_rows(record)]
    columns = tuple(name for name in scan_columns(record) if name)
    return environment.from_string(source).render(
        record=record,
        columns=columns,
        rows=without_bar,
        remarks=scan_remarks(record),
        networks=[points[0] for points in by_network(record)],
        chart=scan_chart(record),
        is_reconstructed=is_reconstructed(record),
    )


def scan_chart(record: ScanRecord) -> Chart | None:
    """The increase of the loss against the MACs, as it was seen, or else as it is predicted where it is, and beside it
    that of the reconstructed networks; None if it is known of no point."""
    known = (p for p in record.points if p.seen_increase is not None or not p.is_beyond_model)
    as_cut = [(p, grown(p)) for p in known if math.isfinite(grown(p))]
    repaired = [(p, value) for p in record.points if (value := _finite(p.seen_increase_reconstructed)) is not None]
    if not as_cut:
        return None
    x_ticks = nice_ticks(0, max(point.macs for point, _ in as_cut))
    increases = [value for _, value in (*as_cut, *repaired)]
    y_ticks = nice_ticks(min(0.0, *increases), max(0.0, *increases))
    across = Scale(x_ticks[0], x_ticks[-1], LEFT, WIDTH - RIGHT)
    up = Scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)

    def marks(points: list[tuple[ScanPoint, float]], phase: str) -> tuple[Mark, ...]:
        phases = ["dense" if point is record.points[0] else phase for point, _ in points]
        at = [(round(across(point.macs), 1), round(up(value), 1)) for point, value in points]
        words = [_words(record, point) for point, _ in points]
        return tuple(Mark(*place, *said) for place, said in zip(at, zip(phases, words, strict=True), strict=True))

    series = {"width": marks(as_cut, "width"), "finetune": marks(repaired, "finetune")}
    lines = {phase: " ".join(f"{mark.x},{mark.y}" for mark in found) for phase, found in series.items()}
    return Chart(
        marks=(*series["width"], *(mark for mark in series["finetune"] if mark.phase != "dense")),
        lines=tuple((phase, line) for phase, line in lines.items() if len(series[phase]) > 1),
        x_ticks=tuple(Tick(round(across(v), 1), format_count(v)) for v in x_ticks),
        y_ticks=tuple(Tick(round(up(v), 1), f"{v:.3g}") for v in y_ticks),
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _words(record: ScanRecord, point: ScanPoint) -> str:
    seen = "" if point.seen_increase is None else f"loss as cut {point.seen_increase:+.3g}, "
    repaired = point.seen_increase_reconstructed
    seen += "" if repaired is None else f"reconstructed {repaired:+.3g}, "
    return (
        f"{point.macs / record.points[0].macs:.1%} of the MACs, {seen}predicted loss {predicted(point)}, "
        f"{point.blocks_left} blocks and {point.channels_left} channels left"
    )
