"""What a run is asked for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from amsc.data import Data
from amsc.jobs.listening import Heard
from amsc.limits.target import Target
from amsc.settings import Settings
from amsc.tasks import Task

__all__ = ["Request"]


@dataclass(frozen=True, eq=False)
class Request:
    """The arguments of `compress` or `pick`, with what is taken where one was left out."""

    model: nn.Module
    example_inputs: Any
    data: Data
    target: Target
    task: Task
    settings: Settings
    name: str
    out: Path | None
    progress: Heard
