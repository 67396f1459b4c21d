"""Amounts as text: counts, bytes, durations and scores with the figures that a person wants."""

import math
from collections.abc import Callable, Iterable

__all__ = [
    "SHARES",
    "TIMES",
    "format_bytes",
    "format_count",
    "format_score",
    "format_seconds",
    "ranges",
    "score_format",
]

SHARES = ("accuracy", "mean IoU")
"""Scores that are shares, and shown in percent."""
TIMES = "\N{MULTIPLICATION SIGN}"


def format_score(score: float) -> str:
    """A share such as an accuracy in percent."""
    return f"{score:.2%}" if math.isfinite(score) else "-"


def score_format(name: str) -> Callable[[float], str]:
    """How a score of that name is written: in percent if it is a share."""
    return format_score if name in SHARES else "{:.4g}".format


def format_count(number: float) -> str:
    """A count with three or four figures and K, M, G or T."""
    for factor, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "K")):
        if number >= factor:
            return f"{number / factor:.4g} {unit}"
    return f"{number:.4g}"


def format_bytes(number: float) -> str:
    """Bytes in B, KiB, MiB or GiB."""
    for factor, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if number >= factor:
            return f"{number / factor:.4g} {unit}"
    return f"{number:.4g} B"


def format_seconds(seconds: float) -> str:
    """A duration in the unit that reads best, from microseconds to minutes."""
    if seconds >= 90:
        return f"{seconds / 60:.1f} min"
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def ranges(indices: Iterable[int]) -> str:
    """Whole numbers with runs as "3-7", such as "0, 3-7"."""
    runs: list[list[int]] = []
    for index in sorted(indices):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
