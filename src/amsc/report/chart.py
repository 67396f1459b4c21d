"""The frontier of a scan as marks in a box of fixed size: positions here, drawing in the template."""

import math
from dataclasses import dataclass

__all__ = [
    "BOTTOM",
    "HEIGHT",
    "LEFT",
    "RIGHT",
    "TOP",
    "WIDTH",
    "Chart",
    "Mark",
    "Scale",
    "Tick",
    "nice_ticks",
]

WIDTH, HEIGHT = 720, 340
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 16, 48


@dataclass(frozen=True)
class Mark:
    """One path point: its place in the box, its phase, and what a reader who points at it is told."""

    x: float
    y: float
    phase: str
    words: str


@dataclass(frozen=True)
class Tick:
    """A labelled position on one axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Chart:
    """Everything the template draws: marks, one line through each phase, ticks, the box."""

    marks: tuple[Mark, ...]
    lines: tuple[tuple[str, str], ...]  # (phase, SVG points)
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


@dataclass(frozen=True)
class Scale:
    """Maps low..high to start..end along one axis of the box."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Where `value` lies."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def nice_ticks(low: float, high: float, count: int = 5) -> tuple[float, ...]:
    """About `count` round numbers that span low..high; a single value gets room on both sides."""
    if high <= low:
        low, high = low - abs(low or 1.0) * 0.05, low + abs(low or 1.0) * 0.05
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(round(i * step, 12) for i in range(first, last + 1))
