"""What a run is of: what must be the same for it to be resumed, and words for what is not."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from amsc.data import Data
from amsc.errors import RunFolderError
from amsc.jobs.fingerprint import fingerprint
from amsc.limits.target import Target, format_target
from amsc.settings import Settings, plain_settings
from amsc.tasks import Task

__all__ = ["refuse_another_run", "run_identity"]


def run_identity(
    name: str, model: nn.Module, data: Data, task: Task, target: Target, settings: Settings
) -> dict[str, Any]:
    """What must be the same for a run to be resumed, as plain data. The model's weights need not be: they are saved."""
    return {
        "model": name,
        "network": {key: list(tensor.shape) for key, tensor in model.state_dict().items() if hasattr(tensor, "shape")},
        "data": data.name,
        **fingerprint(data),
        "task": task.name,
        "target": format_target(target),
        **plain_settings(settings),
    }


def refuse_another_run(folder: Path, was: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with the run in `folder`, which was of `was`, as one of `now`; only what `now` says is compared.

    Raises:
        RunFolderError: they differ; the message says in what.
    """
    for key in now:
        if key in was and was[key] != now[key]:
            raise RunFolderError(
                f"the run in {folder} {_difference(key, was[key], now[key])}; resume it with the same model, data, "
                "target and settings, or start in another folder"
            )


def _difference(key: str, was: Any, now: Any) -> str:
    if not isinstance(was, Mapping) or not isinstance(now, Mapping):
        return f"had {key} = {was!r}, not {now!r}"
    name = next(name for name in {**was, **now} if was.get(name) != now.get(name))
    if name not in now:
        return f"was of another {key}: {name} is missing in this one"
    if name not in was:
        return f"was of another {key}: {name} is only in this one"
    return f"was of another {key}: {name} is {was[name]} there and {now[name]} here"
