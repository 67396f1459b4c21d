"""A record as rows of text, which a report, a terminal and a notebook show; nothing here knows how they are drawn."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from amsc.records import Measurement, PathPoint, ReconstructionRecord, Record, RefittedLayer
from amsc.words.alike import name_together
from amsc.words.amounts import SHARES, format_bytes, format_count, format_score, format_seconds, ranges, score_format
from amsc.words.free import judged_section, verdict
from amsc.words.page import Page, Section, first_rows

__all__ = [
    "GroupRow",
    "Row",
    "before_after",
    "group_rows",
    "is_within_spread",
    "path_remarks",
    "path_words",
    "reconstruction_page",
    "record_page",
    "shown_path",
    "unproven_words",
    "verified_words",
    "went_back",
]

MOST_GROUPS = 8
"""In the words of a record; the report has all."""
MOST_LAYERS = 24
"""In the words of a reconstruction."""


ENDS = ("dense", "regularized", "finetune", "end")
"""The phases of what is no point between the dense network and the outcome."""


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
        Row(_latency_words(before), _latency(before), _latency(after), _latency_change(record)),
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


def _latency_words(cost: Measurement) -> str:
    return "latency" if cost.runtime == "torch" else f"latency ({cost.runtime})"


def _latency(cost: Measurement) -> str:
    return f"{format_seconds(cost.latency_seconds)} ± {format_seconds(cost.latency_spread_seconds)}"


def _latency_change(record: Record) -> str:
    change = _relative(record.before.latency_seconds, record.after.latency_seconds)
    return f"{change} (within the spread)" if is_within_spread(record) else change


def is_within_spread(record: Record) -> bool:
    """Whether the latencies differ by less than either spreads, so that the difference may be chance."""
    spread = max(record.before.latency_spread_seconds, record.after.latency_spread_seconds)
    return abs(record.before.latency_seconds - record.after.latency_seconds) < spread


def _relative(before: float, after: float) -> str:
    return f"{(after - before) / before:+.1%}" if before else "-"


def group_rows(record: Record) -> tuple[GroupRow, ...]:
    """For each group that lost channels: how many and which, runs of indices as "3-7"."""
    return tuple(
        GroupRow(name, len(indices), ranges(indices)) for name, indices in record.removed_channels.items() if indices
    )


def shown_path(record: Record) -> tuple[PathPoint, ...]:
    """The points of the path as they are shown: of a run that fine-tuned nothing, the last one is no "finetune" but the
    "end", if it is another network than the one before, and else not there."""
    if record.settings.get("finetune_epochs", 1):
        return record.path
    found: list[PathPoint] = []
    for point in record.path:
        if point.phase != "finetune":
            found.append(point)
        elif not found or _network(found[-1]) != _network(point):
            found.append(replace(point, phase="end"))
    return tuple(found)


def path_words(record: Record) -> str:
    """What the rows of the path are; the points are counted as `path_points` and the progress count them, without the
    dense network before and the fine-tuned one after them."""
    phases = [point.phase for point in shown_path(record)]
    count, tuned = sum(phase not in ENDS for phase in phases), phases.count("finetune")
    ends = f" and {'the' if tuned == 1 else tuned} fine-tuned network{'s' * (tuned > 1)}" if tuned else ""
    pulled = ", the same trained under the regularizer" if "regularized" in phases else ""
    return f"the dense network{pulled}, {count} point{'s' * (count != 1)}{ends}"


def _network(point: PathPoint) -> tuple[Any, ...]:
    return point.removed_blocks, dict(point.removed_channels), point.macs


def path_remarks(record: Record) -> tuple[str, ...]:
    """What the rows of the path do not say: how small it goes for nothing, where that was asked, why blocks are back,
    and what fine-tuning did."""
    tuned = _tuning_words(record)
    if record.judged_shares:
        return (verdict(record.judged_shares, record.score_name), *tuned)
    phases = [point.phase for point in record.path]
    if "depth" not in phases or "width" not in phases:
        return tuned
    before, after = (point.blocks_left for point in (_last(record, "depth"), _first(record, "width")))
    return (*([went_back(before, after)] if before < after else []), *tuned)


def _tuning_words(record: Record) -> tuple[str, ...]:
    """What fine-tuning began with and led to, on the validation split."""
    last = record.path[-1] if record.path else None
    if last is None or last.score_before is None or last.rejected_score is not None:
        return ()
    show = score_format(record.score_name)
    return (
        f"fine-tuning took the {record.score_name} on the validation split from {show(last.score_before)} to "
        f"{show(last.score)}",
    )


def _first(record: Record, phase: str) -> PathPoint:
    return next(point for point in record.path if point.phase == phase)


def _last(record: Record, phase: str) -> PathPoint:
    return next(point for point in reversed(record.path) if point.phase == phase)


def went_back(before: int, after: int) -> str:
    """That width began with more blocks than depth had left, and why."""
    blocks = f"{after} block{'s' * (after != 1)}"
    return (
        f"width goes on from an earlier network, with {blocks} and not {before}: without the others the "
        "validation score was worse than the best one by more than one standard error (the depth rule)"
    )


def verified_words(record: Record) -> str:
    """How far the proof of what went is off; that there is none where nothing of it can be proven."""
    gone = {name for name, indices in record.removed_channels.items() if indices}
    if record.unproven and not record.removed_blocks and gone <= record.unproven.keys():
        return "nothing that went could be verified"
    return f"largest difference between the masked and the cut network: {record.verification_error:.2g} relative"


def unproven_words(unproven: Mapping[str, str]) -> tuple[str, ...]:
    """What the proof does not cover, a text for each reason why groups (name -> reason) are not."""
    reasons = dict.fromkeys(unproven.values())
    names = {why: [name for name, one in unproven.items() if one == why] for why in reasons}
    return tuple(
        f"no proof covers the channels of {name_together(names[why], most=4)} ({why}): the scores judge them"
        for why in reasons
    )


def record_page(record: Record) -> Page:
    """The outcome of a run: before and after, what went, and how it came about."""
    groups = [(row.name, str(row.count), row.indices) for row in group_rows(record)]
    epochs = record.path[-1].epochs if record.path else 0.0
    seconds = format_seconds(sum(record.seconds.values()))
    return Page(
        f"{record.model} on {record.data}, target {record.target}",
        (
            *record.warnings,
            f"blocks removed: {name_together(record.removed_blocks, most=6) or 'none'}",
            *path_remarks(record),
            f"path: {path_words(record)}; with all training {epochs:g} epochs, {seconds}",
            verified_words(record),
            *unproven_words(record.unproven),
        ),
        (
            Section(
                ("", ">before", ">after", ">change"),
                tuple((row.name, row.before, row.after, row.change) for row in before_after(record)),
            ),
            *((judged_section(record.judged_shares, record.score_name),) if record.judged_shares else ()),
            *first_rows(("channels removed from", ">number", "which"), groups, MOST_GROUPS, "groups"),
        ),
        "more: record.path, record.removed_channels, record.to_json()",
    )


def reconstruction_page(record: ReconstructionRecord) -> Page:
    """Layer by layer the error before and after, and what was left alone, and why."""
    tried = [layer for layer in record.layers if not layer.reason]
    alone = [layer for layer in record.layers if layer.reason]
    reasons = dict.fromkeys(layer.reason for layer in alone)
    return Page(
        f"Reconstruction: {record.in_a_line()}",
        tuple(
            f"left alone: {name_together([layer.name for layer in alone if layer.reason == reason])} ({reason})"
            for reason in reasons
        ),
        first_rows(
            ("layer", "target", ">error before", ">after", ">ridge"), [*map(_layer_row, tried)], MOST_LAYERS, "layers"
        ),
        "errors: squared, shares of the variance, on examples held out; more: to_json()",
    )


def _layer_row(layer: RefittedLayer) -> tuple[str, ...]:
    errors = ("-" if error is None else f"{error:.3g}" for error in (layer.error_before, layer.error_after))
    return (layer.name, layer.target, *errors, "as it was" if layer.ridge is None else f"{layer.ridge:g}")
