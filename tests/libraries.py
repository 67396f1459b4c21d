"""Other libraries of networks, where they are installed: transformers, timm, ultralytics.

All three import torchvision where it is there, and that fails where its compiled part is not made for this torch.
"""

import importlib.util
from types import ModuleType
from typing import Any

import pytest
import torch

_KEPT: list[torch.library.Library] = []


def library(name: str) -> Any:
    """The package `name`, or a skipped test."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    torchvision_importable()
    return pytest.importorskip(name)


def torchvision_importable() -> None:
    """Declare the two operators that `import torchvision` looks for, where they are missing; nothing runs them."""
    if importlib.util.find_spec("torchvision") is None or _KEPT:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError:  # operator torchvision::nms does not exist
        declared = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            declared.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(declared)


def module_named(name: str, **contents: Any) -> ModuleType:
    """A module made of these things, in the place of a library."""
    made = ModuleType(name)
    made.__dict__.update(contents)
    return made
