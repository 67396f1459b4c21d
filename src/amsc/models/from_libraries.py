"""Networks of other libraries by name: torchvision, timm and transformers, imported when they are asked for."""

import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from amsc.errors import ModelError
from amsc.words.nearest import nearest

__all__ = ["LIBRARIES", "build_from", "has_own_weights", "library_of"]

LIBRARIES: Mapping[str, str] = {"torchvision": "torchvision", "timm": "timm", "hf": "transformers"}
"""What stands before the colon -> the package."""
PRETRAINED = "?pretrained"
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def library_of(name: str) -> str | None:
    """What stands before the colon, if `name` asks for a network of a library."""
    kind, colon, _ = name.partition(":")
    return kind if colon and kind in LIBRARIES else None


def has_own_weights(name: str) -> bool:
    """Whether the network that a library makes of this name comes with trained weights."""
    kind = library_of(name)
    return kind == "hf" or (kind == "timm" and name.endswith(PRETRAINED))


def build_from(name: str, num_classes: int | None, in_channels: int | None) -> nn.Module:
    """The network `name`: `torchvision:NAME`, `timm:NAME`, `timm:NAME?pretrained` or `hf:NAME`.

    Raises:
        ModelError: the library is not there, has no such network, or cannot get its weights.
    """
    kind, _, rest = name.partition(":")
    package = _imported(LIBRARIES[kind], name)
    build = {"torchvision": _from_torchvision, "timm": _from_timm, "hf": _from_transformers}[kind]
    return build(package, rest, num_classes, in_channels)


def _imported(package: str, name: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ModelError(f"{name} needs the package {package}; install it with pip") from error
    except RuntimeError as error:  # torchvision without the compiled part for this torch
        raise ModelError(
            f"{name} needs the package {package}, which cannot be imported ({error}); install the release of {package} "
            "that was made for this torch"
        ) from error


def _from_torchvision(package: Any, name: str, num_classes: int | None, in_channels: int | None) -> nn.Module:
    models = importlib.import_module(f"{package.__name__}.models")
    if in_channels not in (None, 3):
        raise ModelError(f"torchvision:{name} takes images of 3 channels, the data have {in_channels}")
    _check_known("torchvision", name, models.list_models())
    model: nn.Module = models.get_model(name, **_said(num_classes=num_classes))
    return model


def _from_timm(package: Any, name: str, num_classes: int | None, in_channels: int | None) -> nn.Module:
    name, pretrained = name.removesuffix(PRETRAINED), name.endswith(PRETRAINED)
    if ":" not in name:  # one of the library's own, and no hf-hub: or local-dir:
        _check_known("timm", name.partition(".")[0], package.list_models())
    try:
        model: nn.Module = package.create_model(
            name, pretrained=pretrained, **_said(num_classes=num_classes, in_chans=in_channels)
        )
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"timm cannot make {name!r}{' with its trained weights' if pretrained else ''}: {_first_line(error)}"
            f"{_cure_offline(error)}"
        ) from error
    return model


def _from_transformers(package: Any, name: str, num_classes: int | None, in_channels: int | None) -> nn.Module:
    """The model of a folder or of the hub, of the class that its config names, in float32.

    A folder with no more than a config gives random weights, and only then do the classes and channels count."""
    config = _from_disk_or_hub(package.AutoConfig, name)
    made = _class_of(package, config)
    try:
        if not _is_config_alone(Path(name)):
            model: nn.Module = _from_disk_or_hub(made, name)
        else:
            for key, value in _said(num_labels=num_classes, num_channels=in_channels).items():
                if hasattr(config, key):
                    setattr(config, key, value)
            model = made(config) if made.__name__ != "AutoModel" else made.from_config(config)
    except (ValueError, RuntimeError, ImportError) as error:
        raise ModelError(f"transformers cannot make a {made.__name__} of {name!r}: {_first_line(error)}") from error
    return model.float()


def _class_of(package: Any, config: Any) -> Any:
    """The class that a config was written by, or the one that transformers takes for it where it does not say."""
    for architecture in getattr(config, "architectures", None) or ():
        made = getattr(package, str(architecture), None)
        if isinstance(made, type) and issubclass(made, package.PreTrainedModel):
            return made
    return package.AutoModel


def _is_config_alone(folder: Path) -> bool:
    return folder.is_dir() and not any((folder / name).exists() for name in WEIGHT_FILES)


def _from_disk_or_hub(made: Any, name: str) -> Any:
    """What `made.from_pretrained` gives for a folder, or for a name of the hub: from its cache, else from the net."""
    try:
        return made.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError) as first:
        if Path(name).is_dir():
            raise ModelError(
                f"the folder {name} holds no model of transformers: {_first_line(first)}; expected what "
                "save_pretrained writes (of a model that amsc saved, give the run folder without hf:)"
            ) from first
    try:
        return made.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"hf:{name} is no folder here, not in the cache of the Hugging Face hub, and cannot be fetched: "
            f"{_first_line(error)}; give a folder that save_pretrained wrote, as in hf:FOLDER"
        ) from error


def _check_known(library: str, name: str, available: Iterable[str]) -> None:
    available = list(available)
    if name not in available:
        raise ModelError(f"{library} has no model {name!r}{nearest(name, available)}")


def _said(**options: int | None) -> dict[str, int]:
    return {key: value for key, value in options.items() if value is not None}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _cure_offline(error: Exception) -> str:
    return "; without a network leave ?pretrained out and give --weights FILE" if isinstance(error, OSError) else ""
