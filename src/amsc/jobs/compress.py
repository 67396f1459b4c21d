"""The whole job: a trained network in, a smaller verified network and the record of how it came about out."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from amsc.borrowing import borrowed, copied, run_model
from amsc.data import Data, moved
from amsc.errors import DataError, InputError, ModelError, RunFolderError, SettingsError, TargetError
from amsc.jobs.run_folder import RunFolder, RunState, run_identity
from amsc.jobs.stages import Job
from amsc.limits.budget import Budget, find_budget
from amsc.limits.target import Target
from amsc.records import Record, Timing
from amsc.report import render
from amsc.settings import Settings
from amsc.structure import Structure, select, trace, without_plain
from amsc.surgery import CutPlan, cuttable
from amsc.tasks import Classification, Segmentation, Task
from amsc.training import NoProgress, Progress, device_of, forward, scores_of

__all__ = [
    "Result",
    "check_data",
    "check_kinds",
    "check_target",
    "chosen_task",
    "compress",
    "deterministic",
    "finished",
    "prepared",
    "removable",
]


@dataclass(frozen=True, eq=False)
class Result:
    """The small `model`, ready to use; the `record` of the run; the `plan` that leads from the dense network to it; and
    the `structure` of the small network."""

    model: nn.Module
    record: Record
    plan: CutPlan
    structure: Structure

    def report(self, path: str | Path) -> None:
        """Write the report of the run as one HTML file.

        Raises:
            RunFolderError: it cannot be written.
        """
        try:
            Path(path).write_text(render(self.record), encoding="utf-8")
        except OSError as error:
            raise RunFolderError(f"cannot write {path}: {error.strerror or error}") from error


def compress(
    model: nn.Module,
    example_inputs: Any,
    data: Data,
    *,
    target: Target,
    task: Task | None = None,
    settings: Settings | None = None,
    out: str | Path | None = None,
    model_name: str = "",
    resume: bool = False,
    progress: Progress | None = None,
) -> Result:
    """A smaller network that meets `target`, found on the AMSC path (depth first, then width) and fine-tuned.

    The steps: trace; train the dense network first if `settings.dense_epochs` says so; walk, cutting and verifying all
    the way; fine-tune; verify the whole; measure. `model` is not changed. On a CPU two runs with the same
    settings give the same record but for seconds, latencies and peak memory; so does a run that was killed and resumed.

        result = compress(model, images[:1], data, target=Target(macs=0.5), out="runs/first")

    Args:
        example_inputs: a tensor, or a tuple or dict of arguments, for which MACs and latency are counted.
        task: loss and score; classification if None.
        out: the run's folder; new, unless `resume`. With None nothing is written.
        model_name: what record and report call the model; its class if empty.
        resume: go on with the run in `out`.
        progress: hears how far the work is.

    Raises:
        TargetError: the target cannot be reached; the message says what can. Nothing has been trained then.
        RunFolderError: `out` exists, cannot be written, or belongs to another run.
        ModelError, InputError, DataError: model, example inputs and data do not fit each other.
        TrainingError: the loss became infinite or nan.
        VerificationError: a cut network differs from the masked one.
    """
    settings = settings or Settings()
    task = chosen_task(task, settings)
    check_kinds(model, data, settings)
    name = model_name or type(model).__name__
    check_target(target)
    if out is None and target.drop is not None:  # the search comes back to the points of the path
        with tempfile.TemporaryDirectory() as scratch:
            return compress(
                model, example_inputs, data, target=target, task=task, settings=settings, out=Path(scratch) / "run",
                model_name=model_name, progress=progress
            )  # fmt: skip
    folder = RunFolder(None if out is None else Path(out), run_identity(name, data.name, target, settings))
    folder.check(resume=resume)
    known = folder.open(resume=True).timing if resume else None
    budget = prepared(model, example_inputs, data, task, target, settings, known)
    state = replace(folder.open(resume=resume), timing=budget.timing)
    folder.write_settings(settings, model_name, target)
    dense, listener = copied(model), progress or NoProgress()
    job = Job(dense, budget, example_inputs, data, task, settings, name, target, folder, listener)
    with deterministic(settings.deterministic):
        return finished(job, state)


def prepared(
    model: nn.Module,
    example_inputs: Any,
    data: Data,
    task: Task,
    target: Target,
    settings: Settings,
    timing: Timing | None = None,
) -> Budget:
    """What may be removed from the network, and what the target means for it, after all has been checked that can be.

    Raises:
        TargetError, ModelError, InputError, DataError, SettingsError: see `compress`.
    """
    _check_layout(model, example_inputs, settings)
    structure = removable(model, example_inputs, settings)
    check_data(model, data, task)
    if target.drop is not None and target.drop >= 1 and isinstance(task, Classification | Segmentation):
        raise TargetError(
            f"drop={target.drop:g} lets all of the {task.name} go; for so many points write drop={target.drop:g}%"
        )
    return find_budget(model, structure, example_inputs, target, settings, timing)


def removable(model: nn.Module, example_inputs: Any, settings: Settings) -> Structure:
    """The structure of what may go.

    Raises:
        SettingsError: a name in the settings names nothing.
        ModelError, InputError: the model cannot be traced on these inputs.
    """
    structure = cuttable(model, trace(model, example_inputs), example_inputs)
    structure = select(structure, keep=settings.keep, only=settings.only)
    settings.rounding(structure)  # so that a wrong name is refused before any work
    return structure if settings.plain else without_plain(structure)


def finished(job: Job, state: RunState) -> Result:
    """The outcome of a run that goes on from `state`."""
    last, small = job.run(state)
    assert last.record is not None, "the last stage has written it"
    return Result(small.model, last.record, job.final_plan(last), small.structure)


def chosen_task(task: Task | None, settings: Settings) -> Task:
    """The task of a run: the given one, or classification.

    Raises:
        SettingsError: the settings ask for what only classification, or only amsc's own, has.
    """
    if task is None:
        return Classification(settings.label_smoothing)
    if settings.label_smoothing:
        raise SettingsError(
            f"label_smoothing={settings.label_smoothing} is for the task that amsc makes; a task of yours has its own: "
            "give that one the smoothing, and the settings none"
        )
    if settings.distillation and not isinstance(task, Classification):
        raise SettingsError(
            f"distillation={settings.distillation} needs logits of classes, but the task is {type(task).__name__}; "
            "leave distillation at 0"
        )
    return task


def check_target(target: Any) -> None:
    """Refuse what is no target."""
    if not isinstance(target, Target):
        raise TargetError(f"target must be an amsc.Target, such as amsc.Target(macs=0.5); got {target!r}")


def check_kinds(model: Any, data: Any, settings: Settings) -> None:
    """Refuse a model or data of the wrong kind, and settings that name another device than the model's."""
    if not all(hasattr(data, name) for name in ("batches", "num_batches", "num_examples", "name")):
        raise DataError(
            f"data must have the methods of amsc.data.Data, {type(data).__name__} has not; wrap your own loaders: "
            "amsc.data.LoaderData(train, validation, test)"
        )
    devices = {p.device.type for p in model.parameters()} if isinstance(model, nn.Module) else set()
    wanted = torch.device(settings.device).type
    if devices and devices != {wanted}:
        raise SettingsError(
            f"the model is on {', '.join(sorted(devices))}, settings.device is {settings.device}; "
            f"move the model with model.to({settings.device!r}), or set Settings(device=...) to where it is"
        )


def _check_task(model: nn.Module, task: Task, inputs: Any, target: Any) -> None:
    """Refuse a task whose loss or score of a first batch is no number."""
    device = device_of(model)
    with borrowed(model):
        output = forward(model, inputs, device)
        loss, scores = task.loss(output, moved(target, device)), scores_of(task, output, moved(target, device))
    for name, value in (("loss", loss), (task.name, scores)):
        if not isinstance(value, Tensor) or not bool(torch.isfinite(value).all()):
            raise DataError(f"the {name} of the first batch must be finite, it is {value}; check the task and the data")
    if loss.numel() != 1:
        raise DataError(f"the loss of a batch must be one number, got shape {tuple(loss.shape)}; check the task")


def _check_layout(model: nn.Module, example_inputs: Any, settings: Settings) -> None:
    """Refuse `channels_last` for a model that does not run in that layout."""
    if not settings.channels_last:
        return
    trial = copied(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        with borrowed(trial):
            run_model(trial, example_inputs)
    except InputError as error:
        raise SettingsError(f"channels_last: the model does not run in that layout; leave it out ({error})") from error


# What each split of the data is for.
PURPOSES = {"train": "to learn from", "validation": "to choose by", "test": "for the scores it reports"}


def check_data(model: nn.Module, data: Data, task: Task, splits: Sequence[str] = tuple(PURPOSES)) -> None:
    """Refuse data that the model or the task cannot use, before any time is spent on them."""
    for split in splits:
        if data.num_examples(split) == 0:
            raise DataError(
                f"the {split} split of {data.name} is empty; amsc needs one {PURPOSES[split]} "
                f"(LoaderData: pass {split}=)"
            )
    with borrowed(model):
        output = run_model(model, data.example_inputs(2))
    for inputs, target in data.batches("validation" if "validation" in splits else "train"):
        _check_task(model, task, inputs, target)
        break
    if not isinstance(task, Classification) or data.num_classes is None:
        return
    if data.num_classes < 2:
        raise DataError(f"{data.name} has a single class: there is nothing to tell apart; give data of two or more")
    if not isinstance(output, Tensor) or output.dim() != 2:
        came = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ModelError(
            f"classification expects the model to return one tensor of shape (batch, classes), got {came}; wrap the "
            "model so that it returns the logits alone"
        )
    if output.shape[1] != data.num_classes:
        raise DataError(
            f"the model tells {output.shape[1]} classes apart, {data.name} has {data.num_classes}; build the model "
            f"with {data.num_classes} classes, or give the data it was trained for"
        )


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Only algorithms that give the same bits each time, if `wanted`."""
    before, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    try:
        if wanted:
            torch.use_deterministic_algorithms(True)
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
