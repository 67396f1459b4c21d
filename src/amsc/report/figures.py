"""What the charts of a report draw, as plain data for the page: positions, names and the words that pointing shows."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from amsc.records import NormTrace, PathPoint, ReconstructionRecord, Record, TrainingCurve
from amsc.words.amounts import SHARES, format_count, score_format
from amsc.words.record import shown_path

__all__ = ["figures", "final_reconstruction", "has_norms", "point_words"]

Plain = dict[str, Any]


def figures(record: Record) -> Plain:
    """The data of all charts. What cannot be drawn, such as a score that is not finite, is left out."""
    return {
        "score": {"name": record.score_name, "isShare": record.score_name in SHARES},
        "path": _path(record),
        "layers": _layers(record),
        "repaired": _repaired(record),
        "norms": {"blocks": _norm_lines(record, "blocks"), "groups": _norm_lines(record, "groups")},
        "losses": list(_losses(record)),
        "watched": list(_watched(record)),
        "scores": [_scored(record, point) for point in shown_path(record) if math.isfinite(point.score)],
    }


def point_words(record: Record, point: PathPoint) -> str:
    """The network of a point in a line: what it costs, how well it does, and what is left of it."""
    share = f"{point.macs / record.before.macs:.1%}" if record.before.macs else "-"
    blocks, channels = record.blocks_before, record.channels_before
    return (
        f"{share} of the multiply-adds ({format_count(point.macs)}), {format_count(point.parameters)} parameters: "
        f"{record.score_name} {score_format(record.score_name)(point.score)} on the validation split; "
        f"{point.blocks_left} of {blocks} blocks and {point.channels_left} of {channels} channels left"
    )


def _path(record: Record) -> list[Plain]:
    """The points with a score, the dearest first: the slider goes along them."""
    place = {point.index: position for position, point in enumerate(record.path)}
    points = [
        {
            "phase": point.phase,
            "name": f"{point.phase} {point.index}",
            "macs": point.macs,
            "share": point.macs / record.before.macs,
            "score": point.score,
            "words": point_words(record, point),
            "place": place[point.index],
        }
        for point in shown_path(record)
        if math.isfinite(point.score) and record.before.macs
    ]
    return sorted(points, key=lambda point: -point["macs"])


def _layers(record: Record) -> list[Plain]:
    """The layers front to back; `along` are the widths at the points of the path, where they are known of all."""
    return [
        {
            "name": layer.name,
            "kind": layer.kind,
            "before": layer.before,
            "after": layer.after,
            "block": layer.block,
            "along": list(layer.along_path) if len(layer.along_path) == len(record.path) else [],
        }
        for layer in record.layers
    ]


def final_reconstruction(record: Record) -> ReconstructionRecord | None:
    """What the last cut on the way to the outcome gave back; None if nothing was reconstructed."""
    found = [point.repaired for point in record.path if point.repaired is not None]
    same = [
        point.repaired
        for point in record.path
        if point.repaired is not None
        and (point.removed_blocks, dict(point.removed_channels))
        == (record.removed_blocks, dict(record.removed_channels))
    ]
    best = same or found
    return best[-1] if best else None


def _repaired(record: Record) -> list[Plain]:
    found = final_reconstruction(record)
    return [
        {"name": layer.name, "before": layer.error_before, "after": layer.error_after}
        for layer in (found.layers if found else ())
        if layer.error_before is not None and layer.error_after is not None and not layer.reason
        if math.isfinite(layer.error_before) and math.isfinite(layer.error_after)
    ]


def has_norms(record: Record) -> bool:
    """Whether the lasso picture can be drawn."""
    return any(point.norms is not None for point in record.path)


def _norm_lines(record: Record, kind: str) -> list[Plain]:
    """For each block or group its norm along the path as a share of what it began with; 0 once it is gone."""
    traces = [point.norms for point in record.path if point.norms is not None]
    named = [_named(trace, kind) for trace in traces]
    names = dict.fromkeys(name for lines in named for name in lines)
    gone = set(record.removed_blocks if kind == "blocks" else ())
    end = record.path[-1].epochs if record.path else 0.0
    lines = []
    for name in names:
        marks = [mark for trace, found in zip(traces, named, strict=True) for mark in _marks(trace, found.get(name))]
        if name in gone:  # cut at the end of the last piece, if not before
            marks.append((max(marks[-1][0], _end_of_path(record, end)), 0.0))
        first = next((norm for _, norm in marks if norm > 0), 1.0)
        left = marks[-1][1] / first
        points = [{"epoch": epoch, "norm": norm / first} for epoch, norm in marks]
        lines.append({"name": name, "left": left, "isGone": left == 0, "points": points})
    return lines


def _end_of_path(record: Record, end: float) -> float:
    walked = [point.epochs for point in record.path if point.phase in ("depth", "width")]
    return walked[-1] if walked else end


def _named(trace: NormTrace, kind: str) -> Mapping[str, tuple[float, ...]]:
    return trace.blocks if kind == "blocks" else trace.groups


def _marks(trace: NormTrace, norms: Sequence[float] | None) -> Iterator[tuple[float, float]]:
    """(epoch, norm) of one group in one piece: zero all along if it is not there any more."""
    values = norms if norms is not None else [0.0] * len(trace.epochs)
    return (mark for mark in zip(trace.epochs, values, strict=False) if math.isfinite(mark[1]))


def _losses(record: Record) -> Iterator[Plain]:
    """The losses against all epochs of training so far; `line` tells the curves apart."""
    for line, (curve, start) in enumerate(_curves(record)):
        for epoch, loss in zip(curve.epochs, curve.losses, strict=False):
            if math.isfinite(loss):
                yield {"phase": curve.phase, "line": line, "epoch": start + epoch, "loss": loss}


def _watched(record: Record) -> Iterator[Plain]:
    """The scores on the way of training, against the same epochs."""
    show = score_format(record.score_name)
    for line, (curve, start) in enumerate(_curves(record)):
        for epoch, score in zip(curve.score_epochs, curve.scores, strict=False):
            if math.isfinite(score):
                words = f"{curve.phase}, on the way: {show(score)}"
                yield {"phase": curve.phase, "line": line, "epoch": start + epoch, "score": score, "words": words}


def _curves(record: Record) -> Iterator[tuple[TrainingCurve, float]]:
    """The curves with the epochs of training before each."""
    tuned = iter(sorted((p for p in record.path if p.phase == "finetune"), key=lambda point: point.index))
    start = record.path[0].epochs if record.path else 0.0
    for curve in record.training:
        first = {"dense": 0.0, "finetune": _start_of(curve, next(tuned, None) if curve.phase == "finetune" else None)}
        yield curve, first.get(curve.phase, start)


def _start_of(curve: TrainingCurve, point: PathPoint | None) -> float:
    """After how many epochs the fine-tuning began that led to a point (or that was rejected there)."""
    if point is None or not curve.epochs:
        return 0.0
    return point.epochs - (0.0 if point.rejected_score is not None else curve.epochs[-1])


def _scored(record: Record, point: PathPoint) -> Plain:
    return {
        "phase": point.phase,
        "epoch": point.epochs,
        "score": point.score,
        "words": f"{point.phase} {point.index}: {score_format(record.score_name)(point.score)}",
    }
