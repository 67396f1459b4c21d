"""What `compress`, `pick`, `resume` and `demo` share: run into a folder, show the outcome."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

from torch import nn

from amsc.cli.console import Console
from amsc.cli.opening import SETTINGS_FILE, absolute, called, free_folder, open_both, task_of, torch_as_set
from amsc.cli.trust import functions_in
from amsc.data import Data
from amsc.jobs.compress import compress
from amsc.jobs.pick import pick
from amsc.jobs.result import Result
from amsc.limits.target import Target, format_target, parse_target
from amsc.parallel import by_first
from amsc.records import Record
from amsc.report import before_after, group_rows, score_format
from amsc.settings import RunSettings
from amsc.training import Progress
from amsc.words.free import judged_section
from amsc.words.record import path_remarks, path_words, shown_path, unproven_words, verified_words
from amsc.words.verdict import verdict_words

__all__ = ["REPORT_FILE", "begin", "begin_pick", "carry_on", "payload", "show_outcome", "show_path"]

REPORT_FILE = "report.html"

Work = Callable[[nn.Module, Data, RunSettings, Progress], Result]


def begin(run: RunSettings, out: Path | None, console: Console, *, name: str | None = None) -> tuple[Record, Path]:
    """Run from the start in the new folder `out`, or one named after `name` or the model.

    The target and the folder are checked before anything is opened.
    """
    target = parse_target(run.target or "")
    folder = by_first(lambda: free_folder(out, name or run.model or "run"))

    def work(model: nn.Module, data: Data, run: RunSettings, listener: Progress) -> Result:
        return _compressed(model, data, run, target, folder, listener, resume=False)

    return _recorded(dataclasses.replace(absolute(run), python={}), folder, console, work), folder


def begin_pick(run: RunSettings, walked: Path, out: Path | None, console: Console) -> tuple[Record, Path]:
    """Fine-tune the network of the path in `walked` that meets the target, in the new folder `out` or one beside it."""
    target = parse_target(run.target or "")
    name = re.sub(r"[^\w.]+", "-", format_target(target).replace("%", "-percent")).strip("-")
    folder = by_first(lambda: free_folder(out or walked / "picks" / name, ""))

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
            model_name=called(run),
            source=run,
            progress=listener,
        )

    return _recorded(dataclasses.replace(absolute(run), python={}), folder, console, work), folder


def carry_on(run: RunSettings, folder: Path, console: Console) -> Record:
    """Continue the run in `folder` where it was stopped."""
    target = parse_target(run.target or "")

    def work(model: nn.Module, data: Data, run: RunSettings, listener: Progress) -> Result:
        return _compressed(model, data, run, target, folder, listener, resume=True)

    return _recorded(run, folder, console, work)


def _recorded(run: RunSettings, folder: Path, console: Console, work: Work) -> Record:
    """The record of `work` on the run's model and data, with progress shown."""
    with torch_as_set(run.settings):
        model, data, run = open_both(run)
        try:
            with console.progress() as reporter:
                return work(model, data, run, _Announcing(reporter, folder, console)).record
        except KeyboardInterrupt as stop:
            functions = [f"--{part} {name}" for part, name in functions_in(run).items()]
            again = " ".join([f"amsc resume {folder}", *functions])
            hint = f"; to go on: {again}" if (folder / SETTINGS_FILE).is_file() else " before it began"
            raise type(stop)(f"stopped{hint}") from stop


class _Announcing:
    """A listener that is told where the run goes, once the folder is there."""

    def __init__(self, listener: Progress, folder: Path, console: Console) -> None:
        self._listener, self._folder, self._console, self._is_told = listener, folder, console, False

    def update(self, phase: str, step: int, steps: int, **values: float) -> None:
        """Hand it on."""
        if not self._is_told and phase != "prepare":
            self._console.note(f"run folder: {self._folder}")
            self._is_told = True
        self._listener.update(phase, step, steps, **values)


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
        model_name=called(run),
        resume=resume,
        source=run,
        progress=listener,
    )


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
        for point in shown_path(record)
    ]
    columns = ["", ">MACs", ">parameters", ">blocks", f">{record.score_name} (validation)"]
    console.table(f"the path: {path_words(record)}", columns, rows, note="\n".join(path_remarks(record)))


def show_outcome(record: Record, folder: Path, console: Console) -> None:
    """The table of before and after, what went, the proof, and where everything is."""
    rows = [dataclasses.astuple(row) for row in before_after(record)]
    console.table(f"{record.model} on {record.data}, {record.target}", ["", ">before", ">after", ">change"], rows)
    console.show(verdict_words(record))
    blocks = ", ".join(record.removed_blocks) or "none"
    console.show(f"removed blocks ({len(record.removed_blocks)} of {record.blocks_before}): {blocks}")
    groups = group_rows(record)
    channels = ", ".join(f"{group.count} of {group.name}" for group in groups) or "none"
    console.show(f"removed filters ({sum(group.count for group in groups)} in the blocks that stay): {channels}")
    console.show(f"verification: {verified_words(record)}")
    for text in unproven_words(record.unproven):
        console.show(f"verification: {text}")
    if record.judged_shares:
        judged = judged_section(record.judged_shares, record.score_name)
        console.table("as small as it goes for nothing", judged.columns, judged.rows)
    for text in path_remarks(record):
        console.show(f"path: {text}")
    for text in record.warnings:
        console.show(f"warning: {text}")
    console.show(
        f"run folder: {folder} (model/, record.json, {REPORT_FILE}; state/ and points/ are for amsc pick and resume, "
        "and may be deleted where no other budget is wanted)"
    )
    if (folder / "pretrained").is_dir():
        console.show(f"for from_pretrained of transformers: {folder / 'pretrained'}")


def payload(record: Record, folder: Path) -> dict[str, object]:
    """The outcome as one JSON object."""
    return {
        "run": str(folder),
        "model": str(folder / "model"),
        "report": str(folder / REPORT_FILE),
        "record": dataclasses.asdict(record),
    }
