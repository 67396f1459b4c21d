"""Several runs of one network on the same data, side by side on one page."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amsc.records import Record
from amsc.report.comparable import check_comparable
from amsc.report.figures import Plain, figures
from amsc.report.html import page
from amsc.words.amounts import SHARES
from amsc.words.loading import data_words, network_words, shape_words
from amsc.words.record import before_after
from amsc.words.verdict import target_words, verdict_words

__all__ = ["Cell", "compared_rows", "render_comparison"]

SCRIPTS = ("base.js", "frontier.js", "comparison.js", "controls.js")
TABLE = ("score", "parameters", "bytes", "macs", "latency", "memory")
"""The rows of `before_after` that are compared, in its order."""
Runs = Mapping[str, Record]


@dataclass(frozen=True)
class Cell:
    """A number of one run: in words, what it is as a share of the dense network's, and whether it is the best."""

    words: str
    share: str
    is_best: bool


def render_comparison(runs: Runs) -> str:
    """The page that compares `runs` (name -> record); the same records give the same page. Everything is escaped.

    Raises:
        DataError, ModelError: see `check_comparable`.
    """
    check_comparable(runs)
    first = next(iter(runs.values()))
    title = f"amsc: {len(runs)} runs of {first.model} on {first.data}"
    return page(
        "comparison.html.j2",
        title,
        _drawn(runs),
        SCRIPTS,
        first=first,
        runs=[
            {
                "name": name,
                "verdict": verdict_words(record),
                "target": target_words(record),
                "warnings": record.warnings,
            }
            for name, record in runs.items()
        ],
        columns=("", ">before", *(f">{name}" for name in runs)),
        rows=compared_rows(runs),
        has_layers=all(record.layers for record in runs.values()),
        layer_columns=("layer", ">before", *(f">{name}" for name in runs)),
        layer_rows=_layer_rows(runs),
        settings_columns=("setting", *runs),
        settings_rows=_settings_rows(runs),
        remarks=_remarks(runs),
        network=network_words(first),
        about_data=data_words(first),
        shapes=shape_words(first),
    )


def compared_rows(runs: Runs) -> tuple[tuple[str, str, tuple[Cell, ...]], ...]:
    """(quantity, before, a cell for each run) of the score and all costs."""
    tables = [before_after(record)[: len(TABLE)] for record in runs.values()]
    values = [_values(record) for record in runs.values()]
    rows = []
    for number, parts in enumerate(zip(*tables, strict=True)):
        column = [value[number] for value in values]
        best = _best(column, is_score=number == 0, record=next(iter(runs.values())))
        cells = (Cell(part.after, part.change, after == best) for part, (_, after) in zip(parts, column, strict=True))
        rows.append((parts[0].name, parts[0].before, tuple(cells)))
    return tuple(rows)


def _values(record: Record) -> tuple[tuple[float, float], ...]:
    """(before, after) of the rows."""
    both = (record.before, record.after)
    measured = (
        tuple(float(getattr(one, name)) for one in both)
        for name in ("parameters", "bytes", "macs", "latency_seconds", "peak_memory_bytes")
    )
    return ((record.score_before, record.score_after), *((before, after) for before, after in measured))


def _best(column: Sequence[tuple[float, float]], *, is_score: bool, record: Record) -> float:
    """The best of the values after, if they are not all the same; else nan."""
    after = [value for _, value in column if math.isfinite(value)]
    if len(set(after)) < 2:
        return math.nan
    is_higher = is_score and (record.about is None or record.about.higher_is_better)
    return max(after) if is_higher else min(after)


def _drawn(runs: Runs) -> Plain:
    """The data of the charts: the frontiers and layers of all runs."""
    drawn = {name: figures(record) for name, record in runs.items()}
    first = next(iter(runs.values()))
    outcomes = [_outcome(name, record) for name, record in runs.items()]
    return {
        "score": {"name": first.score_name, "isShare": first.score_name in SHARES},
        "runs": list(runs),
        "points": [{**point, "run": name} for name, data in drawn.items() for point in data["path"]],
        "outcomes": [outcome for outcome in outcomes if outcome is not None],
        "layers": {name: data["layers"] for name, data in drawn.items()},
        "before": first.score_before if math.isfinite(first.score_before) else None,
    }


def _outcome(name: str, record: Record) -> Plain | None:
    """A run's end: its share of the multiply-adds and its score on the test split."""
    if not record.before.macs or not math.isfinite(record.score_after):
        return None
    error = record.score_error
    return {
        "run": name,
        "share": record.after.macs / record.before.macs,
        "score": record.score_after,
        "error": error if error is not None and math.isfinite(error) else None,
        "words": verdict_words(record),
    }


def _layer_rows(runs: Runs) -> tuple[tuple[str, ...], ...]:
    """The widths of each layer before and in every run."""
    widths = [{layer.name: layer.after for layer in record.layers} for record in runs.values()]
    first = next(iter(runs.values()))
    return tuple(
        (layer.name, str(layer.before), *(str(found.get(layer.name, "-") or "gone") for found in widths))
        for layer in first.layers
    )


def _settings_rows(runs: Runs) -> tuple[tuple[str, ...], ...]:
    """The settings in which the runs differ."""
    chosen = [record.settings for record in runs.values()]
    names = dict.fromkeys(key for settings in chosen for key in settings)
    differing = [name for name in names if any(each.get(name) != chosen[0].get(name) for each in chosen)]
    return tuple((name, *(str(each.get(name, "-")) for each in chosen)) for name in differing)


def _remarks(runs: Runs) -> tuple[str, ...]:
    """What has to be known before numbers are held against each other."""
    machines: Sequence[Mapping[str, Any]] = [record.after.machine for record in runs.values()]
    keys = dict.fromkeys(key for machine in machines for key in machine)
    differing = [key for key in keys if len({str(machine.get(key)) for machine in machines}) > 1]
    found = []
    if differing:
        found.append(f"Latencies were measured on different machines ({', '.join(differing)} differ).")
    if any(record.about is None for record in runs.values()):
        found.append("Of older records it is not known whether their data and weights were the same.")
    return tuple(found)
