"""Before a run: what may go from the network, what the target means for it, and torch as the settings want it."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from amsc.data import Data, batch_size_of
from amsc.errors import AmscWarning, TargetError
from amsc.jobs.checks import check_data, check_drop, check_free, check_layout, check_trained
from amsc.jobs.imitating import data_for
from amsc.jobs.request import Request
from amsc.limits.budget import Budget, find_budget
from amsc.limits.target import Target
from amsc.records import Timing
from amsc.settings import Settings
from amsc.structure import Structure, select, trace, with_inexact, without_frozen, without_plain
from amsc.surgery import cuttable, uniformly_removable
from amsc.tasks import Classification, Task

__all__ = ["laddered", "prepared", "removable", "settings_used", "taught", "threads_and_determinism"]

DISTILLATION = 0.9
"""Of the loss, what the dense network's soft targets have: worth two to four points after short training
(docs/decisions/2026-11-23-recovery.md)."""


def prepared(wanted: Request, timing: Timing | None = None) -> Budget:
    """What may be removed from the network, and what the target means for it, after all has been checked that can be.

    Raises:
        TargetError, ModelError, InputError, DataError, SettingsError: see `compress`.
    """
    model, example_inputs, settings = wanted.model, wanted.example_inputs, wanted.settings
    check_layout(model, example_inputs, settings)
    structure = removable(model, example_inputs, settings)
    frozen = check_trained(model)
    if settings.method == "proximal":  # it trains what it empties; gates need no training
        structure = without_frozen(structure, model)
    check_data(model, data_for(wanted.task, wanted.data, model), wanted.task, example_inputs)
    check_drop(wanted.target, wanted.task)
    check_free(wanted.target, wanted.data, wanted.task)
    try:
        return find_budget(model, structure, example_inputs, wanted.target, settings, timing)
    except TargetError as error:
        raise TargetError(f"{error}{_words_on_frozen(frozen, settings)}") from error


def _words_on_frozen(frozen: Sequence[str], settings: Settings) -> str:
    if not frozen or settings.method != "proximal":
        return ""
    return (
        f"; {len(frozen)} parameters are frozen (such as {frozen[0]}), so that all they make or read is kept, as with "
        'keep=[...]: set requires_grad_(True) on what may go, or use method="gates", which cuts frozen layers too'
    )


def removable(model: nn.Module, example_inputs: Any, settings: Settings) -> Structure:
    """The structure of what may go.

    Raises:
        SettingsError: a name in the settings names nothing.
        ModelError, InputError: the model cannot be traced on these inputs.
    """
    structure = trace(model, example_inputs)
    structure = cuttable(model, with_inexact(structure) if settings.inexact else structure, example_inputs)
    structure = select(structure, keep=settings.keep, only=settings.only)
    if settings.uniform:
        structure = uniformly_removable(structure, model)
    settings.rounding(structure)  # so that a wrong name is refused before any work
    return structure if settings.plain else without_plain(structure)


def settings_used(settings: Settings, data: Data, *, tell: bool = True) -> Settings:
    """The settings of a run on these data, with the batch size that these have, and a limit only if they keep to it.

    `batch_size` and `limit` are for data that amsc opens by name; data that come as an object decide themselves. With
    `tell`, settings that asked for something else are warned of (`AmscWarning`).
    """
    size, limit = batch_size_of(data), settings.limit
    if limit is not None and data.num_examples("train") > limit:
        limit = None
    ignored = []
    if settings.batch_size not in (size, Settings().batch_size):
        ignored.append(f"batch_size={settings.batch_size} (its batches have {size} examples)")
    if limit != settings.limit:
        ignored.append(f"limit={settings.limit} (it has {data.num_examples('train')} training examples)")
    if ignored and tell:
        warnings.warn(
            f"{data.name} is used as it is, without {' and '.join(ignored)}; say so where the data are made "
            "(amsc.data.open_data takes both)",
            AmscWarning,
            stacklevel=4,
        )
    return replace(settings, batch_size=size, limit=limit)


def taught(settings: Settings, task: Task) -> Settings:
    """The settings with the weight of the dense network's soft targets: what the task allows, where nothing is said."""
    if settings.distillation is not None:
        return settings
    return replace(settings, distillation=DISTILLATION if isinstance(task, Classification) else 0.0)


def laddered(settings: Settings, target: Target) -> Settings:
    """The settings as they are followed where the target is free: the path is a ladder of networks at equal cost then,
    and nothing is trained on it."""
    return replace(settings, path_epochs=0.0, depth_rule="equal-cost") if target.is_free else settings


@contextmanager
def threads_and_determinism(settings: Settings) -> Iterator[None]:
    """Torch with the settings' threads, and only algorithms that give the same bits each time if they say so. Where
    steps are captured and need not, cuDNN tries which of its algorithms is the fastest."""
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    before, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    try:
        if settings.threads:
            torch.set_num_threads(settings.threads)
        if settings.deterministic:
            torch.use_deterministic_algorithms(True)
        if settings.capture:
            torch.backends.cudnn.benchmark = not settings.deterministic
        yield
    finally:
        torch.backends.cudnn.benchmark = benchmark
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
