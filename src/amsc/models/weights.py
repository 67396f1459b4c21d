"""Reading trained weights from a file into a network, without running code that the file holds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from amsc.errors import ModelError

__all__ = ["load_weights"]


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Copy the tensors in the file `path` into `model`, in place, converted to the model's types and device.

    The file is a safetensors file or what `torch.save` wrote: a state dict, or a dict that holds one under
    `state_dict`. A prefix `module.` on every name (from DataParallel) is taken off; counters of BatchNorm
    (`num_batches_tracked`), which old files lack, may be missing.

    Raises:
        ModelError: there is no such file, it cannot be read, or it does not fit; the message names tensors that
            are missing, not expected, of another shape or not finite. The model is then unchanged.
    """
    path = Path(path)
    tensors = _without_prefix(_state_dict(_read(path), path))
    expected: dict[str, Tensor] = model.state_dict()
    problems = [*_misfits(tensors, expected), *_not_finite(tensors)]
    if problems:
        raise ModelError(f"the weights in {path} do not fit {type(model).__name__}: " + "; ".join(problems))
    model.load_state_dict({**expected, **tensors})


def _read(path: Path) -> Any:
    if not path.is_file():
        raise ModelError(f"expected a weights file, but {path} is {'a folder' if path.is_dir() else 'not there'}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on foreign bytes the two readers fail with whatever their parsers stumble on
        raise ModelError(
            f"cannot read {path} as weights ({type(error).__name__}: {_first_line(error)}); expected a .safetensors"
            " file or a state dict written by torch.save, loadable with weights_only=True"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    inner = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(inner, Mapping) or not inner or not all(isinstance(t, Tensor) for t in inner.values()):
        raise ModelError(
            f"{path} holds {type(inner).__name__}, expected a state dict: names and tensors, at the top or under"
            " 'state_dict'; save one with torch.save(model.state_dict(), path)"
        )
    return {str(name): tensor for name, tensor in inner.items()}


def _without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    if all(name.startswith("module.") for name in tensors):
        return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors


def _misfits(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    needed = [name for name in expected if not name.endswith("num_batches_tracked")]
    missing = [name for name in needed if name not in tensors]
    unexpected = [name for name in tensors if name not in expected]
    shapes = [
        f"{name} is {tuple(tensor.shape)} in the file and {tuple(expected[name].shape)} in the model"
        for name, tensor in tensors.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    sentences = [_listed("missing in the file", missing), _listed("not in the model", unexpected), _listed("", shapes)]
    return [sentence for sentence in sentences if sentence]


def _not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    bad = [name for name, t in tensors.items() if t.is_floating_point() and not torch.isfinite(t).all()]
    return [_listed("not finite", bad)] if bad else []


def _listed(heading: str, items: list[str], at_most: int = 5) -> str:
    """The items after their heading, the first few written out; empty when there are none."""
    if not items:
        return ""
    more = f" and {len(items) - at_most} more" if len(items) > at_most else ""
    return (f"{heading}: " if heading else "") + ", ".join(items[:at_most]) + more
