"""Other libraries of networks, where they are installed: transformers, timm, ultralytics."""

import importlib.util
from types import ModuleType
from typing import Any

import pytest
from torchvision_in_part import make_importable


def library(name: str) -> Any:
    """The package `name`, or a skipped test."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    make_importable()
    return pytest.importorskip(name)


def module_named(name: str, **contents: Any) -> ModuleType:
    """A module made of these things, in the place of a library."""
    made = ModuleType(name)
    made.__dict__.update(contents)
    return made
