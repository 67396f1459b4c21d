"""Which values each setting may have."""

import math
import re
import typing
from collections.abc import Mapping
from typing import Any

from amsc.data.images import FLIPS
from amsc.errors import SettingsError
from amsc.words.nearest import nearest

__all__ = ["BLOCK_CRITERIA", "CHOICES", "CRITERIA", "RANGES", "REGULARIZERS", "check_type", "check_value"]

OF_WEIGHTS = ("random", "l1", "l2", "batchnorm-scale", "geometric-median", "lamp", "group-norm")
CRITERIA = (*OF_WEIGHTS, "taylor", "fisher", "hrank", "chip", "hsic")
BLOCK_CRITERIA = ("cka", "shortgpt", "dbp", "entropy", "taylor")
"""What other people's criteria are called; `amsc.criteria.table` has them."""
REGULARIZERS = ("slimming", "polarization", "dependency", "growing")
"""Their penalties of training; `amsc.regularizers.table` has them."""
CHOICES = {
    "method": ("proximal", "gates", "criterion"),
    "criterion": ("", *CRITERIA),
    "block_criterion": ("", *BLOCK_CRITERIA),
    "regularizer": ("", *REGULARIZERS),
    "criterion_spread": ("auto", "uniform", "global", "knapsack"),
    "depth_rule": ("equal-cost", "one-standard-error", "share"),
    "weights": ("fisher", "amsc", "ssl", "gl", "rw"),
    "theta_hat": ("dense", "group-lasso", "refreshed"),
    "currency": ("target", "macs", "params"),
    "prices": ("obs", "fisher"),
    "optimizer": ("sgd", "adamw"),
    "precision": ("auto", "float32", "bfloat16"),
    "flip": FLIPS,
}

# key -> (lowest, highest, is the lowest itself allowed, is the highest itself allowed)
RANGES: Mapping[str, tuple[float, float, bool, bool]] = {
    "seed": (0, 2**32 - 1, True, True),
    "dense_epochs": (0, math.inf, True, False),
    "path_epochs": (0, math.inf, True, False),
    "finetune_epochs": (0, math.inf, True, False),
    "path_points": (1, math.inf, True, False),
    "depth_share": (0, 1, True, True),
    "batch_size": (1, math.inf, True, False),
    "dense_learning_rate": (0, math.inf, False, False),
    "path_learning_rate": (0, math.inf, False, False),
    "finetune_learning_rate": (0, math.inf, False, False),
    "momentum": (0, 1, True, False),
    "regularization": (0, math.inf, False, False),
    "label_smoothing": (0, 1, True, False),
    "distillation": (0, 1, True, True),
    "temperature": (0, math.inf, False, False),
    "ema": (0, 1, True, False),
    "weight_decay": (0, math.inf, True, False),
    "limit": (1, math.inf, True, False),
    "reconstruction": (0, math.inf, True, False),
    "round_to": (1, math.inf, True, False),
    "min_channels": (1, math.inf, True, False),
    "threads": (0, math.inf, True, False),
    "score_every": (0, math.inf, True, False),
}


def check_type(key: str, value: Any, kind: Any) -> None:
    """Refuse a value of another type than its hint says.

    Raises:
        SettingsError: it is.
    """
    if kind == tuple[str, ...]:
        if not isinstance(value, tuple) or not all(isinstance(each, str) and each for each in value):
            raise SettingsError(f"{key}: expected a list of names or globs such as ['layer1*'], got {value!r}")
        return
    kinds = typing.get_args(kind) or (kind,)
    words = [word for each in kinds for word in typing.get_args(each)]
    if isinstance(value, str) and value in words:
        return
    allowed = tuple(each for each in kinds if not typing.get_args(each))
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if float in allowed and is_number:
        return
    if (isinstance(value, bool) and bool not in allowed) or not isinstance(value, allowed):
        names = ["nothing" if a is type(None) else _KIND_WORDS[a] for a in allowed]
        raise SettingsError(f"{key}: expected {' or '.join([*names, *words])}, got {value!r}")


_KIND_WORDS: Mapping[Any, str] = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def check_value(key: str, value: Any) -> None:
    """Refuse a value that a setting cannot have.

    Raises:
        SettingsError: it cannot.
    """
    if key in CHOICES and value not in CHOICES[key]:
        known = [word for word in CHOICES[key] if word]
        raise SettingsError(f"{key}: expected one of {', '.join(known)}, got {value!r}{nearest(value, known)}")
    if key == "device" and not re.fullmatch(r"cpu|mps|cuda(:\d+)?", value):
        raise SettingsError(f"device: expected cpu, cuda, cuda:N or mps, got {value!r}")
    if key in RANGES and isinstance(value, int | float):
        lowest, highest, with_lowest, with_highest = RANGES[key]
        fits = (lowest <= value if with_lowest else lowest < value) and (
            value <= highest if with_highest else value < highest
        )
        if not fits:
            raise SettingsError(f"{key}: expected {_range_words(*RANGES[key])}, got {value!r}")


def _range_words(lowest: float, highest: float, with_lowest: bool, with_highest: bool) -> str:
    low = f"{lowest:g} or more" if with_lowest else f"more than {lowest:g}"
    if highest == math.inf:
        return f"a finite number, {low}"
    return f"{low} and {'at most' if with_highest else 'less than'} {highest:.10g}"
