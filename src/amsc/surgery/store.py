"""A model in a folder, without pickle: config.json says what was cut, model.safetensors holds the tensors."""

import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from amsc.borrowing import set_tensor
from amsc.errors import AmscError, ModelError, RunFolderError
from amsc.records import from_json, to_json
from amsc.storage import read_text, sync
from amsc.surgery.apply import apply_plan, misfit, plan_of
from amsc.surgery.hub import HUB, from_hub
from amsc.surgery.plan import CutPlan
from amsc.tensor_files import load_tensors, save_tensors
from amsc.words.json_text import plain_json

__all__ = ["ModelConfig", "StoredTensor", "load", "save"]

FORMAT = "amsc-model"
FORMAT_VERSION = 2
READ_VERSIONS = (1, 2)
"""In version 1 the inputs of a plan were those of one call."""
READ = " and ".join(map(str, READ_VERSIONS))
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"
MODEL_FOLDER = "model"
"""Where a run folder has its model."""


@dataclass(frozen=True)
class StoredTensor:
    """Dtype (such as "float32") and shape of one tensor in the weights file."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ModelConfig:
    """What config.json holds. `plan` leads from the dense network to the saved one (None: it was never
    cut); `tied` maps further names of a tensor to the name under which it is stored."""

    format: str
    format_version: int
    plan: CutPlan | None
    tensors: Mapping[str, StoredTensor]
    tied: Mapping[str, str]


def save(model: nn.Module, folder: str | os.PathLike[str], *, card: str = "") -> None:
    """Write `model` to `folder` as config.json and model.safetensors; all of it, or nothing.

    An amsc model that is there already is replaced. The model is not changed. A `card` is written as README.md, as
    hubs show it (`amsc.words.card.model_card` makes one of a record; runs write it).

    Raises:
        RunFolderError: the folder holds something else, or cannot be written.
        ModelError: the model has state that is not a tensor.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"expected a torch.nn.Module, got {type(model).__name__}; write save(model, folder)")
    _check_folder(folder)
    target = Path(folder).resolve()
    _check_replaceable(target)
    state, config = _described(model)
    text = _config_text(config)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        save_tensors(temporary / WEIGHTS_FILE, state)
        (temporary / CONFIG_FILE).write_text(text, encoding="utf-8")
        if card:
            (temporary / CARD_FILE).write_text(card, encoding="utf-8")
        shutil.copymode(temporary / CONFIG_FILE, temporary / WEIGHTS_FILE)  # safetensors leaves it to its owner alone
        for written in (*temporary.iterdir(), temporary):
            sync(written)
        _put_in_place(temporary, target)
        sync(target.parent)
    except OSError as error:
        raise RunFolderError(
            f"the model could not be written to {target} ({error}); what was there is unchanged."
            " Check that the disk has room and that the folder may be written"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load(folder: str | os.PathLike[str], build: Callable[[], nn.Module] | None = None) -> nn.Module:
    """The model saved in `folder`, or "hf:OWNER/NAME" on the Hugging Face hub (or "...@REVISION"), in eval mode;
    `build` makes the dense network, with any weights.

    The network is cut by the saved plan and filled with the saved tensors in their saved dtypes; device and
    `requires_grad` are as `build` sets them. Buffers that are not in the state
    dict are those of `build`, cut. The result's `amsc_plan` is the saved plan. Nothing is unpickled.

        small = load("run/model", lambda: resnet20(num_classes=10))
        small = load("hf:me/small-resnet20@v1", lambda: resnet20(num_classes=10))

    Raises:
        RunFolderError: the folder or its files are missing, corrupt or of another format version, or the hub does not
            give them.
        ModelError: `build` is not given, or returns another network than the one that was saved.
    """
    build = _checked_build(folder, build)
    source = from_hub(str(folder)) if str(folder).startswith(HUB) else Path(folder)
    config = _read_config(source)
    state = _read_weights(source, config)
    model = _built(build)
    if config.plan is not None:
        if fact := misfit(model, config.plan):
            raise ModelError(
                f"{_other(source)} {fact}; give a function that builds the dense network as it was before it was cut"
            )
        model = apply_plan(model, config.plan, fold=False)
    _fill(model, state, config, source)
    return model.eval()


def _check_folder(folder: Any) -> None:
    if not isinstance(folder, str | os.PathLike):
        raise RunFolderError(f"expected the name of a folder, got {_kind(folder)}")


def _checked_build(folder: Any, build: Any) -> Callable[[], nn.Module]:
    _check_folder(folder)
    if build is None:
        raise ModelError(
            f"what builds the dense network, with any weights, is missing: write amsc.load({str(folder)!r}, lambda: "
            "MyNetwork(...)); the README.md and the report of a run have the lines"
        )
    if isinstance(build, nn.Module) or not callable(build):
        raise ModelError(
            f"expected a function that builds the dense network, such as lambda: {_class_of(build)}(...); got "
            f"{_kind(build)}"
        )
    made: Callable[[], nn.Module] = build
    return made


def _class_of(build: Any) -> str:
    return type(build).__name__ if isinstance(build, nn.Module) else "MyNetwork"


def _kind(value: Any) -> str:
    return f"a network ({type(value).__name__})" if isinstance(value, nn.Module) else type(value).__name__


def _built(build: Callable[[], nn.Module]) -> nn.Module:
    try:
        model = build()
    except Exception as error:  # the user's function may raise anything
        raise ModelError(
            f"build() failed: {type(error).__name__}: {error}; give a function without arguments that builds the dense "
            "network, such as lambda: MyNetwork(classes=10)"
        ) from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"build() must return the dense torch.nn.Module, not {type(model).__name__}")
    return model


def _other(source: Path) -> str:
    return f"build() returned another network than the one saved in {source}:"


def _described(model: nn.Module) -> tuple[dict[str, Tensor], ModelConfig]:
    """The tensors to store, each once, and what config.json says about them."""
    named, tied = _once(model)
    table = {name: StoredTensor(_dtype_name(tensor), tuple(tensor.shape)) for name, tensor in named.items()}
    return named, ModelConfig(FORMAT, FORMAT_VERSION, plan_of(model), table, tied)


def _config_text(config: ModelConfig) -> str:
    try:
        return to_json(config, indent=1) + "\n"
    except TypeError as error:
        raise ModelError(
            f"the plan cannot be written as JSON ({error}): the example inputs held something else than tensors,"
            " numbers, strings and None; trace the model with plain arguments and plan again"
        ) from error


def _once(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The state dict with every tensor under its first name only, and the further names of tied ones."""
    named: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    first: dict[int, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not isinstance(tensor, Tensor):
            raise ModelError(
                f"the state {name!r} is a {type(tensor).__name__}, not a tensor, and cannot be saved without pickle;"
                " make it a buffer, or drop get_extra_state"
            )
        if id(tensor) in first:
            tied[name] = first[id(tensor)]
        else:
            first[id(tensor)] = name
            named[name] = tensor
    return named, tied


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _check_replaceable(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise RunFolderError(f"{target} is a file; name a folder for the model")
    try:
        names = {path.name for path in target.iterdir()} if target.exists() else set()
    except OSError as error:
        raise RunFolderError(f"{target} cannot be read ({error}); name another folder") from error
    if not names:
        return
    foreign = sorted(names - {CONFIG_FILE, WEIGHTS_FILE, CARD_FILE})
    if foreign:
        raise RunFolderError(f"{target} holds {foreign[0]!r}, which is no part of an amsc model; name another folder")
    _read_config(target)  # somebody else's config.json is refused here


def _put_in_place(temporary: Path, target: Path) -> None:
    """Move the finished folder to its name; an older model there stays until the new one stands."""
    if not target.exists() or not any(target.iterdir()):
        os.replace(temporary, target)
        return
    old = temporary.with_suffix(".old")
    os.replace(target, old)
    try:
        os.replace(temporary, target)
    except BaseException:  # of a signal too
        os.replace(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _read_config(folder: Path) -> ModelConfig:
    path = folder / CONFIG_FILE
    try:
        text = read_text(path)
        head = plain_json(text)
    except FileNotFoundError as error:
        inner = folder / MODEL_FOLDER
        hint = f"; the run in it has one: {inner}" if (inner / CONFIG_FILE).is_file() else ""
        raise RunFolderError(f"{folder} holds no saved model: there is no {CONFIG_FILE} in it{hint}") from error
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read as JSON ({error}); save the model again") from error
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise RunFolderError(f"{path} was not written by amsc (its format should be {FORMAT!r}); name another folder")
    if head.get("format_version") not in READ_VERSIONS:
        raise RunFolderError(
            f"{path} has format version {head.get('format_version')}, this amsc reads {READ};"
            " load it with the version of amsc that wrote it, or save it again"
        )
    try:
        return from_json(ModelConfig, text)
    except (AmscError, AttributeError) as error:
        raise RunFolderError(f"{path} is damaged ({error}); save the model again") from error


def _read_weights(folder: Path, config: ModelConfig) -> dict[str, Tensor]:
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise RunFolderError(f"{folder} holds no {WEIGHTS_FILE}; save the model again")
    try:
        state = load_tensors(path)
    except RunFolderError as error:
        raise RunFolderError(f"{path} is damaged ({error}); save the model again") from error
    found = {name: StoredTensor(_dtype_name(tensor), tuple(tensor.shape)) for name, tensor in state.items()}
    differing = sorted(name for name in {*found, *config.tensors} if found.get(name) != config.tensors.get(name))
    if differing:
        raise RunFolderError(
            f"{path} does not belong to the {CONFIG_FILE} beside it: {differing[0]!r} is {found.get(differing[0])}"
            f" in the one and {config.tensors.get(differing[0])} in the other; save the model again"
        )
    return state


def _fill(model: nn.Module, state: dict[str, Tensor], config: ModelConfig, source: Path) -> None:
    """Copy `state` into the model, which must have exactly these tensors, tied in the same way."""
    own, tied = _once(model)
    other = _other(source)
    for name in sorted({*own, *state}):
        if name not in own or name not in state:
            raise ModelError(f"{other} {name!r} is only in {'the saved one' if name in state else 'the built one'}")
        if own[name].shape != state[name].shape:
            raise ModelError(
                f"{other} {name!r} has shape {tuple(own[name].shape)} after the cut, the saved one has"
                f" {tuple(state[name].shape)}"
            )
    for name in sorted({*tied, *config.tied}):
        if tied.get(name) != config.tied.get(name):
            raise ModelError(f"{other} {name!r} is tied to another tensor in only one of them")
    for name, tensor in own.items():
        if tensor.dtype != state[name].dtype:
            set_tensor(model, name, tensor.detach().to(state[name].dtype))
    try:
        model.load_state_dict(state | {name: state[first] for name, first in tied.items()}, strict=True)
    except RuntimeError as error:
        raise ModelError(f"{other} {error}") from error
