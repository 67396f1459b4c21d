"""The settings of a run that had a part in it, or that somebody chose."""

from collections.abc import Callable, Mapping
from typing import Any

from amsc.settings import Settings, plain_settings

__all__ = ["settings_that_count"]

Plain = Mapping[str, Any]


def _trains(settings: Plain) -> bool:
    return any(settings[f"{stage}_epochs"] for stage in ("dense", "path", "finetune"))


def _has_penalty(settings: Plain) -> bool:
    return bool(settings["method"] == "proximal" and settings["path_epochs"])


def _has_criterion(settings: Plain) -> bool:
    return bool(settings["method"] == "criterion")


NEEDS: Mapping[str, Callable[[Plain], Any]] = {
    "dense_learning_rate": lambda settings: settings["dense_epochs"],
    "path_learning_rate": lambda settings: settings["path_epochs"],
    "finetune_learning_rate": lambda settings: settings["finetune_epochs"],
    "distillation": lambda settings: settings["finetune_epochs"],
    "temperature": lambda settings: settings["finetune_epochs"] and settings["distillation"],
    "label_smoothing": lambda settings: settings["label_smoothing"],
    "ema": lambda settings: settings["ema"],
    "regularizer": lambda settings: settings["regularizer"],
    "regularization": lambda settings: settings["regularizer"],
    "threads": lambda settings: settings["threads"],
    "min_channels": lambda settings: settings["min_channels"] > 1,
    "method": lambda settings: settings["method"] != "proximal" or settings["path_epochs"],
    "criterion": _has_criterion,
    "block_criterion": lambda settings: settings["block_criterion"],
    "criterion_spread": _has_criterion,
    "theta_hat": _has_penalty,
    "prices": lambda settings: settings["reconstruction"] and not _has_penalty(settings),
    "optimizer": _trains,
    "momentum": _trains,
    "weight_decay": _trains,
    "precision": _trains,
}
"""Without what a setting has no part in a run."""
FOUND = ("distillation", "precision")
"""What a run notes as it turned out, whoever chose it."""


def settings_that_count(settings: Plain) -> dict[str, Any]:
    """Those of the settings that had a part in the run, and those that are not as by default."""
    usual = plain_settings(Settings())
    known = {**usual, **settings}
    return {name: value for name, value in settings.items() if _counts(name, value, usual, known)}


def _counts(name: str, value: Any, usual: Plain, known: Plain) -> bool:
    if name in NEEDS and not NEEDS[name](known):
        return name not in FOUND and value != usual[name]
    is_off = value is None or value is False or value == []
    return name not in usual or value != usual[name] or not is_off
