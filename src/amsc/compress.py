"""The whole job: a trained network in, a smaller verified network and the record of how it came about out."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from amsc.data import Data
from amsc.errors import DataError, ModelError, RunFolderError, SettingsError, TargetError
from amsc.job import Job
from amsc.model_access import borrowed, copied, run_model
from amsc.penalty import Penalty
from amsc.records import Record
from amsc.report import render
from amsc.run_folder import RunFolder, RunState, run_identity
from amsc.settings import Settings, Target
from amsc.structure import Rounding, Structure, select, trace
from amsc.surgery import CutPlan, cuttable
from amsc.tasks import Classification, Task
from amsc.training import NoProgress, Progress, lowest_macs

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
    check_target(target)
    check_kinds(model, data, settings)
    name = model_name or type(model).__name__
    folder = RunFolder(None if out is None else Path(out), run_identity(name, data.name, target, settings))
    folder.check(resume=resume)
    structure, target_macs = prepared(model, example_inputs, data, task, target, settings)
    state = folder.open(resume=resume)
    folder.write_settings(settings, model_name, target)
    dense, listener = copied(model), progress or NoProgress()
    job = Job(dense, structure, example_inputs, data, task, settings, name, target, target_macs, folder, listener)
    with deterministic(settings.deterministic):
        return finished(job, state)


def prepared(
    model: nn.Module, example_inputs: Any, data: Data, task: Task, target: Target, settings: Settings
) -> tuple[Structure, int]:
    """What may be removed from the network, and the target in MACs, after all has been checked that can be.

    Raises:
        TargetError, ModelError, InputError, DataError, SettingsError: see `compress`.
    """
    structure = cuttable(model, trace(model, example_inputs), example_inputs)
    structure = select(structure, keep=settings.keep, only=settings.only)
    check_data(model, data, task)
    return structure, _feasible_macs(structure, model, target, settings)


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
    if not isinstance(task, Classification) or data.num_classes is None:
        return
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


def _feasible_macs(structure: Structure, model: nn.Module, target: Target, settings: Settings) -> int:
    """The target in MACs; TargetError where removing all that may go is not enough."""
    dense = structure.macs()
    wanted = int(target.macs * dense)
    penalty = Penalty(structure, model)
    rounding = Rounding(settings.round_to, settings.min_channels)
    lowest = lowest_macs(structure.after({}, penalty.blocks), penalty.channels, rounding)
    limits = _limits(settings)
    if lowest == dense:
        why = f" with {limits}" if limits else ""
        raise TargetError(f"nothing in this network can be removed{why}: `amsc inspect` shows what is pinned, and why")
    if lowest > wanted:
        lowest_share = -(-1000 * lowest // dense) / 10
        gone = f"all {len(penalty.blocks)} removable blocks and all but one channel of each group"
        raise TargetError(
            f"macs={target.macs:.4g} cannot be reached: with {f'all that {limits} let go' if limits else gone} gone, "
            f"{lowest} of {dense} MACs are left; the lowest reachable target is macs={lowest_share:.1f}% "
            "(`amsc inspect` shows what is pinned, and why)"
        )
    return wanted


def _limits(settings: Settings) -> str:
    """The settings that say what may not go; "" if none does."""
    chosen = {"keep": list(settings.keep), "only": list(settings.only)}
    said = [f"{name}={globs}" for name, globs in chosen.items() if globs]
    numbers = {"round_to": settings.round_to, "min_channels": settings.min_channels}
    return ", ".join([*said, *(f"{name}={number}" for name, number in numbers.items() if number > 1)])


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
