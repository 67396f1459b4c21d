"""What the page of a run says, section by section, as text and rows: the template only puts it in place."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from amsc.records import Record
from amsc.report.figures import Plain, final_reconstruction, has_norms
from amsc.words.amounts import SHARES, TIMES, format_count, format_seconds, score_format
from amsc.words.free import judged_section
from amsc.words.loading import data_words, loading_code, network_words, shape_words
from amsc.words.record import before_after, group_rows, path_remarks, shown_path, unproven_words, verified_words
from amsc.words.verdict import Cost, checks, costs, ratio_words, target_words, verdict_words

__all__ = ["CostRow", "cost_rows", "heroes", "run_sections"]

PHASE_WORDS = {
    "dense": "the dense network",
    "depth": "after blocks went",
    "width": "after channels went",
    "finetune": "fine-tuned",
    "end": "the outcome",
}
MINUS = "\N{MINUS SIGN}"
PATH_COLUMNS = ("point", ">strength", ">epochs", ">MACs", ">blocks left", ">channels left")
Rows = Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class CostRow:
    """A quantity before and after, in words, and the `share` of it that is left (None where that means nothing)."""

    name: str
    before: str
    after: str
    change: str
    share: float | None


def run_sections(record: Record, drawn: Plain) -> Mapping[str, Any]:
    """All values of the template but the frame's."""
    return {
        "record": record,
        **_head(record),
        **_frontier(record, drawn),
        **_network(record),
        **_reconstruction(record, drawn),
        **_lasso(record, drawn),
        **_training(record, drawn),
        **_rest(record),
    }


def _head(record: Record) -> Mapping[str, Any]:
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
        _hero(known["latency"], "latency"),
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
        cost = known.get(words.get(row.name, ""))
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


def _frontier(record: Record, drawn: Plain) -> Mapping[str, Any]:
    path, shown = drawn["path"], shown_path(record)
    show = score_format(record.score_name)
    shares = [point["share"] for point in path]
    end: Plain = max(path, key=lambda point: int(point["place"]), default={})
    ends = f"from {path[0]['words']} to {path[-1]['words']}" if path else ""
    return {
        "phases": tuple(dict.fromkeys(point["phase"] for point in path)),
        "phase_words": {**{point["phase"]: point["phase"] for point in path}, **PHASE_WORDS},
        "lowest": f"{math.ceil(min(shares, default=1.0) * 1000) / 10:.1f}",
        "end_words": f"{end['name']}: {end['words']}." if path else "",
        "frontier_label": f"{record.score_name} on the validation split against multiply-adds, {len(path)} points, "
        f"{ends}. The same numbers are in the table below.",
        "remarks": path_remarks(record),
        "path_columns": (*PATH_COLUMNS, f">{record.score_name}"),
        "path_rows": tuple(
            (
                f"{point.phase} {point.index}",
                f"{point.strength:.3g}",
                f"{point.epochs:.4g}",
                format_count(point.macs),
                str(point.blocks_left),
                str(point.channels_left),
                show(point.score),
            )
            for point in shown
        ),
        "judged": judged_section(record.judged_shares, record.score_name) if record.judged_shares else None,
    }


def _network(record: Record) -> Mapping[str, Any]:
    gone = sum(layer.after == 0 for layer in record.layers)
    narrower = sum(0 < layer.after < layer.before for layer in record.layers)
    return {
        "layers_label": f"{len(record.layers)} layers, front to back: {gone} are gone, {narrower} are narrower, "
        f"{len(record.layers) - gone - narrower} are as they were. The same numbers are in the table below.",
        "layer_rows": tuple(
            (
                layer.name,
                layer.kind,
                str(layer.before),
                str(layer.after) if layer.after else "gone",
                format_count(layer.macs_before),
                format_count(layer.macs_after),
                layer.block,
            )
            for layer in record.layers
        ),
        "groups": group_rows(record),
        "group_rows": tuple((row.name, str(row.count), row.indices) for row in group_rows(record)),
    }


def _reconstruction(record: Record, drawn: Plain) -> Mapping[str, Any]:
    layers = drawn["repaired"]
    before, after = (median(layer[when] for layer in layers) if layers else 0.0 for when in ("before", "after"))
    examples = record.settings.get("reconstruction")
    why = "it was switched off (reconstruction=0)" if examples == 0 else "nothing of this network could be refitted"
    return {
        "repaired": final_reconstruction(record),
        "repaired_words": f"In the middle of {len(layers)} layers it fell from {before:.3g} to {after:.3g}.",
        "repaired_rows": tuple((one["name"], f"{one['before']:.3g}", f"{one['after']:.3g}") for one in layers),
        "not_repaired": f"No layer was refitted: {why}.",
    }


def _lasso(record: Record, drawn: Plain) -> Mapping[str, Any]:
    norms = drawn["norms"]
    kinds = {"blocks": "block", "groups": "channels"}
    return {
        "has_norms": has_norms(record),
        "no_norms": _why_no_norms(record),
        "norm_labels": {
            kind: f"{sum(line['isGone'] for line in lines)} of {len(lines)} end at zero."
            for kind, lines in norms.items()
        },
        "norm_rows": tuple(
            (line["name"], kinds[kind], f"{line['left']:.1%}") for kind in kinds for line in norms[kind]
        ),
    }


def _why_no_norms(record: Record) -> str:
    settings = record.settings
    if settings.get("method") == "gates":
        return "No penalty was at work: with the method gates a scan says what closes, and there are no norms to draw."
    if not settings.get("path_epochs"):
        return (
            "No penalty was at work: the networks of this path are compared as wholes and not trained on the way. "
            "With training on the path (--path-epochs 8) the group lasso draws blocks and channels to zero, and their "
            "norms are drawn here."
        )
    return "The norms were not kept: this record was written before amsc did."


def _training(record: Record, drawn: Plain) -> Mapping[str, Any]:
    losses = drawn["losses"]
    ends = f"from {losses[0]['loss']:.3g} to {losses[-1]['loss']:.3g}" if losses else ""
    is_untrained = not any(record.settings.get(f"{stage}_epochs") for stage in ("dense", "path", "finetune"))
    nothing = "Nothing was trained in this run." if is_untrained else "The losses of training were not kept."
    return {
        "losses_label": f"The training loss along {len(losses)} moments, {ends}. The numbers are in the table below.",
        "no_losses": nothing,
        "loss_rows": tuple((one["phase"], f"{one['epoch']:.4g}", f"{one['loss']:.4g}") for one in losses),
    }


def _rest(record: Record) -> Mapping[str, Any]:
    return {
        "verified": verified_words(record),
        "unproven": unproven_words(record.unproven),
        "staying_rows": tuple(
            (f"{one.why} ({one.source})" if one.source else one.why, str(one.axes) if one.axes else "block", one.which)
            for one in record.staying
        ),
        "code": loading_code(record),
        "folded": (
            ("Settings", _pairs(record.settings)),
            ("Versions", _pairs(record.versions)),
            ("Machine", _pairs(record.after.machine)),
            ("Time taken", tuple((name, format_seconds(taken)) for name, taken in record.seconds.items())),
        ),
    }


def _pairs(values: Mapping[str, Any]) -> Rows:
    return tuple((str(key), str(value)) for key, value in values.items())
