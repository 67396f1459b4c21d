"""What the page of a run says, section by section, as text and rows: the template only puts it in place."""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from amsc.records import Record
from amsc.report.choices import settings_that_count
from amsc.report.figures import Plain, final_reconstruction, has_norms
from amsc.report.headline import head
from amsc.words.amounts import format_count, format_seconds, score_format
from amsc.words.free import judged_section
from amsc.words.loading import loading_code
from amsc.words.record import group_rows, path_remarks, path_words, shown_path, unproven_words, verified_words

__all__ = ["run_sections"]

PHASE_WORDS = {
    "dense": "the dense network",
    "regularized": "trained under the regularizer",
    "depth": "after blocks went",
    "width": "after channels went",
    "finetune": "fine-tuned",
    "end": "the outcome",
}
PATH_COLUMNS = ("point", ">strength", ">epochs", ">MACs", ">blocks left", ">channels left")
Rows = Sequence[tuple[str, ...]]


def run_sections(record: Record, drawn: Plain) -> Mapping[str, Any]:
    """All values of the template but the frame's."""
    return {
        "record": record,
        **head(record),
        **_frontier(record, drawn),
        **_network(record),
        **_reconstruction(record, drawn),
        **_lasso(record, drawn),
        **_training(record, drawn),
        **_rest(record),
    }


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
        "frontier_label": f"{record.score_name} on the validation split against multiply-adds: "
        f"{path_words(record)}, {ends}. The same numbers are in the table below.",
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
    why = {None: "the record says nothing of one", 0: "it was switched off (reconstruction=0)"}.get(
        examples, "nothing of this network could be refitted"
    )
    return {
        "repaired": final_reconstruction(record),
        "repaired_words": f"In the middle of {len(layers)} layers it fell from {before:.3g} to {after:.3g}.",
        "repaired_rows": tuple((one["name"], f"{one['before']:.3g}", f"{one['after']:.3g}") for one in layers),
        "not_repaired": f"No reconstruction: {why}.",
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
    if settings.get("regularizer"):
        return (
            f"The regularizer {settings['regularizer']} was at work before the path, in training of the whole network; "
            "the norms under it are not kept."
        )
    if settings.get("method") == "criterion":
        return "No penalty was at work: what went, went by the prices of a criterion, and there are no norms to draw."
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
        "watched_rows": tuple(
            (one["phase"], f"{one['epoch']:.4g}", score_format(record.score_name)(one["score"]))
            for one in drawn["watched"]
        ),
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
            ("Settings", SETTINGS_NOTE, _pairs(settings_that_count(record.settings))),
            ("Versions", "", _pairs(record.versions)),
            ("Machine", "", _pairs(record.after.machine)),
            ("Time taken", "", tuple((name, format_seconds(taken)) for name, taken in record.seconds.items())),
        ),
    }


SETTINGS_NOTE = "What had no part in this run, and is as by default, is left out; settings.toml has all."


def _pairs(values: Mapping[str, Any]) -> Rows:
    return tuple((str(key), str(value)) for key, value in values.items())
