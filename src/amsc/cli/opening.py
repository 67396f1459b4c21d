"""From the words of a command line to a model, data, example inputs and a run folder."""

import argparse
import contextlib
import dataclasses
import datetime
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from amsc.borrowing import map_tensors, random_inputs
from amsc.cli.flags import required
from amsc.cli.parser import UsageError
from amsc.cli.trust import functions_in, refuse_functions
from amsc.data import Data, open_data
from amsc.errors import RunFolderError, SettingsError
from amsc.jobs.preparation import settings_used, threads_and_determinism
from amsc.jobs.run_folder import is_as_new
from amsc.models import ZOO, open_model, usual_inputs
from amsc.settings import RunSettings, Settings, read_settings
from amsc.surgery import load
from amsc.tasks import Task, open_task

__all__ = [
    "SETTINGS_FILE",
    "absolute",
    "called",
    "free_folder",
    "named",
    "open_both",
    "open_dense",
    "open_subject",
    "task_of",
    "torch_as_set",
]

SETTINGS_FILE = "settings.toml"


@contextlib.contextmanager
def torch_as_set(settings: Settings) -> Iterator[None]:
    """Threads, seed and determinism as the settings say; given back afterwards, but for the seed.

    Raises:
        SettingsError: the device is not there.
    """
    _check_device(settings.device)
    with threads_and_determinism(settings):
        torch.manual_seed(settings.seed)
        yield


def _check_device(name: str) -> None:
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (
            "this torch has no such device" if isinstance(error, NotImplementedError) else str(error).splitlines()[0]
        )
        raise SettingsError(f"device: {name} cannot be used here ({reason}); use --device cpu") from error


def absolute(run: RunSettings) -> RunSettings:
    """`run` with the paths in it made absolute, so that it can be run again from any folder."""
    data, model = run.data, run.model
    kind, colon, path = (data or "").partition(":")
    if colon and kind in ("parquet", "folder"):
        data = f"{kind}:{_absolute(path)}"
    kind, colon, path = (model or "").partition(":")
    if kind == "hf" and Path(path).is_dir():
        model = f"hf:{_absolute(path)}"
    weights = _absolute(run.weights) if run.weights else None
    return dataclasses.replace(run, model=model, data=data, weights=weights)


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().resolve())


def task_of(run: RunSettings) -> Task | None:
    """The task of a run; None for classification, which the settings shape.

    Raises:
        SettingsError: there is no such task.
    """
    return None if run.task in (None, "classification") else open_task(str(run.task))


def called(run: RunSettings) -> str:
    """What record and report call the model of a run."""
    return run.python.get("name") or run.model or ""


# What a run from Python may lack, and the words that give it.
OBJECTS = {
    "model": ("a model of class {}", "--model package.module:function (or a network by name)"),
    "data": ("data called {!r}", "--data package.module:function (or parquet:PATH, folder:PATH, digits)"),
    "task": ("a task of class {}", "--task package.module:function"),
}


def named(file: Path, args: argparse.Namespace, needs: Sequence[str] = tuple(OBJECTS)) -> RunSettings:
    """The run that is written down in a file, with what --model, --data and --task say on top.

    Raises:
        SettingsError: the file cannot be read.
        UsageError: it names a function, or was started from Python with objects, and one that is needed is not named.
    """
    run = read_settings(file)
    given = {"model": getattr(args, "network", None), **{key: getattr(args, key, None) for key in ("data", "task")}}
    refuse_functions(file, run, given, needs)
    run = run.changed(given, {})
    missing = [key for key in needs if key in run.python and getattr(run, key) is None]
    if missing:
        objects = " and ".join(OBJECTS[key][0].format(run.python[key]) for key in missing)
        flags = " ".join(OBJECTS[key][1] for key in missing)
        it = "it" if missing in (["model"], ["task"]) else "them"
        raise UsageError(f"this run was started from Python with {objects}; give {it}: {flags}")
    return run


def open_both(run: RunSettings) -> tuple[nn.Module, Data, RunSettings]:
    """The model and the data of a run, fitted to each other, and the run with what was learned about them.

    The model is initialised from the seed, so that the same run begins with the same network.
    """
    name = required(run.model, "MODEL")
    data = _open_data(run, required(run.data, "--data DATA"))
    classes = run.num_classes or data.num_classes
    channels = run.in_channels or _image_channels(data.example_inputs(1))
    settings = settings_used(run.settings, data)
    run = dataclasses.replace(run, num_classes=classes, in_channels=channels, settings=settings)
    return _open_model(run, name), data, run


def _open_data(run: RunSettings, name: str) -> Data:
    s = run.settings
    device = torch.device(s.device)
    return open_data(name, seed=s.seed, batch_size=s.batch_size, device=device, limit=s.limit, flip=s.flip)


def _open_model(run: RunSettings, name: str) -> nn.Module:
    torch.manual_seed(run.settings.seed)
    model = open_model(name, num_classes=run.num_classes, in_channels=run.in_channels, weights=run.weights)
    return model.to(run.settings.device)


def _image_channels(example: Any) -> int | None:
    return int(example.shape[1]) if isinstance(example, Tensor) and example.dim() == 4 else None


def open_subject(args: argparse.Namespace, run: RunSettings) -> tuple[nn.Module, Any]:
    """The model that `inspect` and `measure` look at, in eval mode, and its example inputs.

    MODEL may be a name, or the folder of a saved model or of a run. The inputs are those of --input-shape, else of the
    data, else what a saved model was cut with, else what a built-in network was made for.
    """
    name = required(run.model, "MODEL")
    shape: tuple[int, ...] | None = args.input_shape
    if Path(name).is_dir():
        model, run = _load_saved(Path(name), run, args)
    elif args.network is not None:
        raise UsageError(f"--model is for a folder whose network has to be named; {name} is no folder")
    elif run.data is not None:
        model, data, run = open_both(run)
        return model.eval(), data.example_inputs(1) if shape is None else _random(shape, run)
    else:
        channels = shape[1] if shape is not None and len(shape) == 4 and name in ZOO else None
        model = _open_model(dataclasses.replace(run, in_channels=run.in_channels or channels), name)
    return model.eval(), _random(shape, run) if shape is not None else _usual_inputs(model, name, run)


def open_dense(args: argparse.Namespace, run: RunSettings) -> nn.Module | None:
    """The network that the saved model which MODEL names was cut from, with any weights; None where MODEL is no
    folder."""
    folder = Path(required(run.model, "MODEL"))
    if not folder.is_dir():
        return None
    _, dense = _saved_run(folder, run, args)
    return _open_model(dense, str(dense.model)).eval()


def _load_saved(folder: Path, run: RunSettings, args: argparse.Namespace) -> tuple[nn.Module, RunSettings]:
    """The model saved in `folder` or in `folder`/model, built as the settings.toml of its run says, or --model."""
    model_folder, dense = _saved_run(folder, run, args)
    return load(model_folder, lambda: _open_model(dense, str(dense.model))), dense


def _saved_run(folder: Path, run: RunSettings, args: argparse.Namespace) -> tuple[Path, RunSettings]:
    """The folder of the saved model, and how its dense network is built."""
    model_folder = folder / "model" if (folder / "model").is_dir() else folder
    if model_folder == folder and (folder / SETTINGS_FILE).is_file():
        raise RunFolderError(f"the run in {folder} is not finished, so that it has no model yet: amsc resume {folder}")
    file = model_folder.parent / SETTINGS_FILE
    if not file.is_file() and args.network is None:
        raise RunFolderError(
            f"{model_folder} is not inside a run folder: there is no {file} to say how to build the dense network; "
            "give it: --model package.module:function, or in Python: amsc.load(folder, build)"
        )
    if run.weights is not None:
        raise UsageError(f"--weights does not go with the saved model in {model_folder}: it has its own")
    saved = named(file, args, ("model",)) if file.is_file() else RunSettings(model=args.network)
    if saved.model is None:
        raise RunFolderError(f"{file} does not name the model; give it: --model package.module:function")
    dense = dataclasses.replace(saved, weights=None, settings=run.settings)
    return model_folder, dataclasses.replace(
        dense, data=run.data or (None if "data" in functions_in(saved) else saved.data)
    )


def _usual_inputs(model: nn.Module, name: str, run: RunSettings) -> Any:
    plan = getattr(model, "amsc_plan", None)
    if plan is not None:
        generator = torch.Generator().manual_seed(run.settings.seed)
        return random_inputs(plan.inputs, torch.device(run.settings.device), generator)
    if run.data is not None:
        return _open_data(run, run.data).example_inputs(1)
    generator = torch.Generator().manual_seed(run.settings.seed)
    inputs = usual_inputs(model, name, generator, in_channels=run.in_channels)
    return map_tensors(lambda tensor: tensor.to(run.settings.device), inputs)


def _random(shape: tuple[int, ...], run: RunSettings) -> Tensor:
    generator = torch.Generator().manual_seed(run.settings.seed)
    return torch.randn(shape, generator=generator).to(run.settings.device)


def free_folder(wanted: Path | None, name: str) -> Path:
    """Where a new run goes: `wanted`, or runs/NAME-DATE-TIME; nothing is made yet.

    Raises:
        RunFolderError: something is there already.
    """
    folder = wanted or _dated_folder(name)
    try:
        taken = folder.exists() and (not folder.is_dir() or not is_as_new(folder) or (folder / SETTINGS_FILE).exists())
    except OSError as error:
        raise RunFolderError(f"cannot read {folder}: {error.strerror or error}; name another --out") from error
    if taken:
        hint = f"; to go on with the run in it: amsc resume {folder}" if (folder / SETTINGS_FILE).is_file() else ""
        raise RunFolderError(f"{folder} exists already and is not empty: name another --out{hint}")
    return folder


def _dated_folder(name: str) -> Path:
    plain = "".join(c if c.isalnum() or c in "._-" else "-" for c in name)
    stem = f"{plain}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    names = (Path("runs") / (stem if n == 1 else f"{stem}-{n}") for n in range(1, 1000))
    return next(folder for folder in names if not folder.exists())
