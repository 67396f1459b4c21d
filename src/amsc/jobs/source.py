"""From the objects of a run in Python to the names that the command line knows them by, if any."""

import re
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from amsc.borrowing import forked
from amsc.data import Data
from amsc.errors import ModelError
from amsc.limits.target import Target, format_target, parse_target
from amsc.models import ZOO, library_of, open_model
from amsc.settings import RunSettings, Settings
from amsc.tasks import TASKS, Task

__all__ = ["named_again", "noted"]

FUNCTION = re.compile(r"\w+(\.\w+)*:\w+")


def named_again(name: str, model: nn.Module, example_inputs: Any, data: Data, task: Task | None) -> RunSettings:
    """What is known of where model and task came from, and what objects there were.

    `name` is taken to be where the model came from if it is `package.module:function`, `timm:NAME` or `hf:NAME`, or if
    the network of amsc or torchvision with this name has the tensors of this one.
    """
    objects = {"name": name, "model": type(model).__name__, "data": data.name}
    known = next((each for each in TASKS if TASKS[each]() == task), None)
    if task is not None and known is None:
        objects["task"] = type(task).__name__
    library = library_of(name)
    if library in ("timm", "hf") or (library is None and FUNCTION.fullmatch(name)):
        return RunSettings(model=name, task=known, python=objects)
    classes, channels = data.num_classes, _channels(example_inputs)
    if (name in ZOO or library == "torchvision") and _is_like(model, name, classes, channels):
        return RunSettings(model=name, num_classes=classes, in_channels=channels, task=known, python=objects)
    return RunSettings(task=known, python=objects)


def noted(known: RunSettings, target: Target, settings: Settings) -> RunSettings:
    """What settings.toml says of a run to this target; a target that was said in words keeps these."""
    is_said = known.target is not None and parse_target(known.target) == target
    return replace(known, target=known.target if is_said else format_target(target), settings=settings)


def _channels(example_inputs: Any) -> int | None:
    return example_inputs.shape[1] if isinstance(example_inputs, Tensor) and example_inputs.dim() == 4 else None


def _is_like(model: nn.Module, name: str, classes: int | None, channels: int | None) -> bool:
    """Whether the network called `name` has the tensors of `model`."""
    try:
        with forked(), torch.device("meta"):
            other = open_model(name, num_classes=classes, in_channels=channels)
    except ModelError:
        return False
    return _shapes(other) == _shapes(model)


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}
