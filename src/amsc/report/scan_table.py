"""The frontier of a scan as rows of text, with a bar for what each structure costs the loss."""

import math
from collections.abc import Sequence

from amsc.records import ScanPoint, ScanRecord
from amsc.words.amounts import format_count, format_seconds, score_format
from amsc.words.page import Page, Section
from amsc.words.record import unproven_words

__all__ = [
    "SCAN_COLUMNS",
    "asked_words",
    "by_network",
    "frontier_page",
    "grown",
    "is_reconstructed",
    "predicted",
    "scan_columns",
    "scan_remarks",
    "scan_rows",
]

BAR = 24
BEYOND = "beyond the model"
FAR_OFF = "far off"
RECONSTRUCTED = "reconstructed"
SCAN_COLUMNS = ("asked for", "MACs", "share", "parameters", "blocks", "channels", "predicted loss", "loss, as cut", "")


def scan_columns(record: ScanRecord) -> tuple[str, ...]:
    """The names of what `scan_rows` gives: `SCAN_COLUMNS`, then what else was looked at."""
    columns: tuple[str, ...] = SCAN_COLUMNS
    if is_reconstructed(record):
        columns += (f"loss, {RECONSTRUCTED}",)
    if _has_scores(record):
        columns += (f"{record.score_name}, as cut", "BatchNorm anew")
        columns += (f"{record.score_name}, {RECONSTRUCTED}",) if is_reconstructed(record) else ()
    return (*columns, "latency") if _has_latencies(record) else columns


def scan_rows(record: ScanRecord) -> tuple[tuple[str, ...], ...]:
    """A row for each point of the frontier, the dense network first."""
    highest = max((value for point in record.points if math.isfinite(value := grown(point))), default=0.0)
    return tuple(_row(record, point, highest) for point in record.points)


def frontier_page(record: ScanRecord) -> Page:
    """The same as a page: a table under a heading, and remarks under it."""
    bar = SCAN_COLUMNS.index("")
    columns = tuple(name if i == bar else f">{name}" for i, name in enumerate(scan_columns(record)))
    return Page(
        f"{record.model} on {record.data}: what a scan proposes, nothing is trained",
        sections=(Section(columns, scan_rows(record), "\n".join(scan_remarks(record))),),
        more="more: scan.removal(macs=SHARE), scan.report(PATH), scan.to_json()",
    )


def scan_remarks(record: ScanRecord) -> tuple[str, ...]:
    """What the rows do not say: the order of the channels where it is not by the predicted loss, shares out of reach,
    shares with the same network, predictions that are none."""
    remarks = []
    if record.prices == "obs":
        remarks.append(
            "channels go in the order of what they cost once amsc.reconstruct has given back what it can; the "
            "predicted loss and the loss as cut are before it (what costs least without it: prices=fisher)"
        )
    if record.out_of_reach:
        asked = ", ".join(f"{share:.4g}" for share in record.out_of_reach)
        lowest = math.ceil(1000 * record.lowest_share) / 10
        remarks.append(f"out of reach: macs={asked}; the lowest is macs={lowest:.1f}%")
    same = [asked_words(points) for points in by_network(record) if len(points) > 1]
    if same:
        remarks.append(f"one network for {'; one for '.join(same)}: a larger one is predicted to lose no less")
    if any(point.is_beyond_model for point in record.points):
        remarks.append(
            f"{BEYOND}: the loss would fall there, as the network is not at its minimum, so that nothing is known of "
            "what is lost; look with evaluate (--evaluate), or scan a network that is trained to the end"
        )
    if any(point.is_far_off for point in record.points):
        remarks.append(
            f"{FAR_OFF}: the loss of the network as cut, on a few training examples, grows by more than ten times what "
            "is predicted, which is not to be trusted there: a network that fits its examples has hardly any slope to "
            "predict from; go by the loss as cut, and look with evaluate (--evaluate)"
        )
    repaired = [points[0].repaired for points in by_network(record) if points[0].repaired is not None]
    if repaired:
        seconds = format_seconds(sum(one.seconds or 0.0 for one in repaired))
        remarks.append(
            f"{RECONSTRUCTED}: what each cut costs is given back as far as least squares can, from "
            f"{max(one.examples for one in repaired)} training examples without their labels ({seconds} for all)"
        )
    return (*remarks, *unproven_words(record.unproven), *_not_reconstructed(record))


def _not_reconstructed(record: ScanRecord) -> list[str]:
    """Why networks were not reconstructed at all, or none of their layers refitted."""
    reasons: dict[str, list[str]] = {}
    for point in record.points[1:]:
        layers = () if point.repaired is None else point.repaired.layers
        alone = ", ".join(dict.fromkeys(layer.reason for layer in layers if layer.reason))
        is_tried = point.repaired is not None and not any(layer.ridge is not None for layer in layers)
        reason = point.not_reconstructed or (is_tried and (alone or "no layer gets better by it"))
        if reason:
            reasons.setdefault(reason, []).append(_asked(point))
    return [f"not {RECONSTRUCTED}: {', '.join(shares)} ({reason})" for reason, shares in reasons.items()]


def by_network(record: ScanRecord) -> tuple[tuple[ScanPoint, ...], ...]:
    """The points after the dense one, those with the same network together."""
    found: list[list[ScanPoint]] = []
    for point in record.points[1:]:
        removal = (point.removed_blocks, point.removed_channels)
        if found and removal == (found[-1][0].removed_blocks, found[-1][0].removed_channels):
            found[-1].append(point)
        else:
            found.append([point])
    return tuple(map(tuple, found))


def asked_words(points: Sequence[ScanPoint]) -> str:
    """The shares for which there is one network."""
    return ", ".join(map(_asked, points))


def predicted(point: ScanPoint) -> str:
    """How much the loss is predicted to grow, and whether that is far from what was seen."""
    if point.is_beyond_model:
        return BEYOND
    return f"{point.predicted_increase:+.3g}{f', {FAR_OFF}' if point.is_far_off else ''}"


def grown(point: ScanPoint) -> float:
    """How much the loss grows: what was seen, or else what is predicted."""
    return point.predicted_increase if point.seen_increase is None else point.seen_increase


def _asked(point: ScanPoint) -> str:
    return f"{100 * point.share:.4g}%"


def _row(record: ScanRecord, point: ScanPoint, highest: float) -> tuple[str, ...]:
    cells: tuple[str, ...] = (
        _asked(point),
        format_count(point.macs),
        f"{point.macs / record.points[0].macs:.1%}",
        format_count(point.parameters),
        str(point.blocks_left),
        str(point.channels_left),
        predicted(point),
        _increase(point.seen_increase),
        _bar(grown(point), highest),
    )
    if is_reconstructed(record):
        cells += (_increase(point.seen_increase_reconstructed),)
    if _has_scores(record):
        cells += (_score(record, point.score), _score(record, point.score_reestimated))
        cells += (_score(record, point.score_reconstructed),) if is_reconstructed(record) else ()
    return (*cells, _latency(point)) if _has_latencies(record) else cells


def _increase(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3g}"


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


def is_reconstructed(record: ScanRecord) -> bool:
    """Whether the networks were also reconstructed."""
    return any(point.seen_increase_reconstructed is not None for point in record.points)


def _has_scores(record: ScanRecord) -> bool:
    return any(point.score is not None for point in record.points)


def _has_latencies(record: ScanRecord) -> bool:
    return any(point.latency_seconds is not None for point in record.points)
