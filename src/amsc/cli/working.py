"""What `compress`, `resume` and `demo` share: run into a folder, write the report, show the outcome."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

from torch import nn

from amsc.cli.console import Console
from amsc.cli.opening import SETTINGS_FILE, absolute, free_folder, make_folder, open_both, task_of, torch_as_set
from amsc.cli.progress import progress
from amsc.data import Data
from amsc.errors import DataError, InputError, ModelError, RunFolderError, SettingsError, TargetError
from amsc.jobs.compress import Result, compress
from amsc.jobs.pick import pick
from amsc.limits.target import Target, format_target, parse_target
from amsc.records import Record
from amsc.report import before_after, group_rows, score_format
from amsc.settings import RunSettings, write_settings
from amsc.training import Progress

__all__ = ["REPORT_FILE", "begin", "begin_pick", "carry_on", "payload", "show_outcome", "show_path"]

REPORT_FILE = "report.html"

Work = Callable[[nn.Module, Data, RunSettings, Progress], Result]


def begin(run: RunSettings, out: Path | None, console: Console, *, name: str | None = None) -> tuple[Record, Path]:
    """Run from the start in the new folder `out`, or one named after `name` or the model.

    The target and the folder are checked before anything is opened.
    """
    target = parse_target(run.target or "")
    folder = free_folder(out, name or run.model or "run")

    def work(model: nn.Module, data: Data, run: RunSettings, listener: Progress) -> Result:
        return _compressed(model, data, run, target, folder, listener, resume=False)

    return _started(absolute(run), folder, console, work), folder


def begin_pick(run: RunSettings, walked: Path, out: Path | None, console: Console) -> tuple[Record, Path]:
    """Fine-tune the network of the path in `walked` that meets the target, in the new folder `out` or one beside it."""
    target = parse_target(run.target or "")
    name = re.sub(r"[^\w.]+", "-", format_target(target))
    folder = free_folder(out or walked / "picks" / name, "")

    def work(model: nn.Module, data: Data, run: RunSettings, listener: Progress) -> Result:
        return pick(
            walked,
            model,
            data.example_inputs(1),
            data,
            target=target,
            task=task_of(run),
            settings=run.settings,
            out=folder,
            model_name=run.model or "",
            progress=listener,
        )

    return _started(run, folder, console, work), folder


def carry_on(run: RunSettings, folder: Path, console: Console) -> Record:
    """Continue the run in `folder` where it was stopped."""
    target = parse_target(run.target or "")
    with torch_as_set(run.settings):
        model, data, run = open_both(run)
        return _reported(
            folder, console, lambda listener: _compressed(model, data, run, target, folder, listener, resume=True)
        )


def _started(run: RunSettings, folder: Path, console: Console, work: Work) -> Record:
    """The record of `work` in the new `folder`, which goes again if the run is refused before it began."""
    with torch_as_set(run.settings):
        model, data, run = open_both(run)
        make_folder(folder)
        write_settings(folder / SETTINGS_FILE, run)
        console.note(f"run folder: {folder}")
        try:
            return _reported(folder, console, lambda listener: work(model, data, run, listener))
        except (SettingsError, TargetError, ModelError, InputError, DataError, RunFolderError):
            _discard_unused(folder)
            raise


def _discard_unused(folder: Path) -> None:
    """Remove the new run folder if nothing but its settings is in it: the run was refused before it began."""
    files = [path for path in folder.rglob("*") if not path.is_dir()]
    if [path.name for path in files] == [SETTINGS_FILE]:
        files[0].unlink()
        for empty in [*sorted(folder.rglob("*"), reverse=True), folder]:
            empty.rmdir()


def _compressed(
    model: nn.Module, data: Data, run: RunSettings, target: Target, folder: Path, listener: Progress, *, resume: bool
) -> Result:
    return compress(
        model,
        data.example_inputs(1),
        data,
        target=target,
        task=task_of(run),
        settings=run.settings,
        out=folder,
        model_name=run.model or "",
        resume=resume,
        progress=listener,
    )


def _reported(folder: Path, console: Console, work: Callable[[Progress], Result]) -> Record:
    """The record of `work`, with progress shown and the report written."""
    try:
        with progress(console) as reporter:
            result = work(reporter)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"stopped; to go on: amsc resume {folder}") from stop
    result.report(folder / REPORT_FILE)
    return result.record


def show_path(record: Record, console: Console) -> None:
    """The table of the path: what each point costs, and how well it does on the validation split."""
    dense = record.before.macs
    rows = [
        (
            point.phase,
            f"{point.macs / dense:.1%}",
            f"{point.parameters:,}",
            f"{point.blocks_left}",
            score_format(record.score_name)(point.score),
        )
        for point in record.path
    ]
    console.table("the path", ["", ">MACs", ">parameters", ">blocks", f">{record.score_name} (validation)"], rows)


def show_outcome(record: Record, folder: Path, console: Console) -> None:
    """The table of before and after, what went, the proof, and where everything is."""
    rows = [dataclasses.astuple(row) for row in before_after(record)]
    console.table(f"{record.model} on {record.data}, {record.target}", ["", ">before", ">after", ">change"], rows)
    blocks = ", ".join(record.removed_blocks) or "none"
    console.show(f"removed blocks ({len(record.removed_blocks)} of {record.blocks_before}): {blocks}")
    groups = group_rows(record)
    channels = ", ".join(f"{group.count} of {group.name}" for group in groups) or "none"
    console.show(f"removed filters ({sum(group.count for group in groups)} in the blocks that stay): {channels}")
    console.show(f"verification: outputs of the cut and the masked network differ by {record.verification_error:.1e}")
    for text in record.warnings:
        console.show(f"warning: {text}")
    console.show(f"run folder: {folder} (model/, record.json, {REPORT_FILE})")


def payload(record: Record, folder: Path) -> dict[str, object]:
    """The outcome as one JSON object."""
    return {
        "run": str(folder),
        "model": str(folder / "model"),
        "report": str(folder / REPORT_FILE),
        "record": dataclasses.asdict(record),
    }
