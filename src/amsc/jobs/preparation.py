"""Before a run: what may go from the network, what the target means for it, and torch as the settings want it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from amsc.data import Data
from amsc.jobs.checks import check_data, check_drop, check_layout
from amsc.limits.budget import Budget, find_budget
from amsc.limits.target import Target
from amsc.records import Timing
from amsc.settings import Settings
from amsc.structure import Structure, select, trace, without_plain
from amsc.surgery import cuttable
from amsc.tasks import Task

__all__ = ["deterministic", "prepared", "removable"]


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
    check_layout(model, example_inputs, settings)
    structure = removable(model, example_inputs, settings)
    check_data(model, data, task)
    check_drop(target, task)
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
