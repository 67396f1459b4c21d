"""The path as marks in a box of fixed size: positions here, drawing in the template."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from amsc.records import Record
from amsc.words.amounts import SHARES, format_count, score_format
from amsc.words.record import shown_path

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
    "path_chart",
    "tick_label",
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


def path_chart(record: Record) -> Chart | None:
    """The validation score against the MACs of every point of the path; None if no point has a finite score."""
    points = [point for point in shown_path(record) if math.isfinite(point.score)]
    if not points:
        return None
    x_ticks = nice_ticks(0, max(max(p.macs for p in points), record.before.macs))
    y_ticks = nice_ticks(min(p.score for p in points), max(p.score for p in points))
    across = Scale(x_ticks[0], x_ticks[-1], LEFT, WIDTH - RIGHT)
    up = Scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    show = score_format(record.score_name)
    marks = tuple(
        Mark(
            round(across(p.macs), 1),
            round(up(p.score), 1),
            p.phase,
            f"{p.phase} {p.index}: {record.score_name} {show(p.score)}, {format_count(p.macs)} MACs, "
            f"{p.blocks_left} blocks and {p.channels_left} channels left",
        )
        for p in points
    )
    return Chart(
        marks=marks,
        lines=_lines(marks),
        x_ticks=tuple(Tick(round(across(v), 1), format_count(v)) for v in x_ticks),
        y_ticks=tuple(Tick(round(up(v), 1), tick_label(v, record.score_name, y_ticks)) for v in y_ticks),
    )


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


def _lines(marks: Sequence[Mark]) -> tuple[tuple[str, str], ...]:
    """One line per phase, beginning at the last mark of the phase before it."""
    lines: list[tuple[str, list[Mark]]] = []
    for mark in marks:
        if not lines or lines[-1][0] != mark.phase:
            lines.append((mark.phase, lines[-1][1][-1:] if lines else []))
        lines[-1][1].append(mark)
    return tuple((phase, " ".join(f"{m.x},{m.y}" for m in members)) for phase, members in lines if len(members) > 1)


def nice_ticks(low: float, high: float, count: int = 5) -> tuple[float, ...]:
    """About `count` round numbers that span low..high; a single value gets room on both sides."""
    if high <= low:
        low, high = low - abs(low or 1.0) * 0.05, low + abs(low or 1.0) * 0.05
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(round(i * step, 12) for i in range(first, last + 1))


def tick_label(value: float, score_name: str, ticks: Sequence[float]) -> str:
    """A score beside its tick: in percent if it is a share, with a decimal where the ticks need one."""
    if score_name not in SHARES:
        return f"{value:.4g}"
    decimals = 0 if all(abs(t * 100 - round(t * 100)) < 1e-6 for t in ticks) else 1
    return f"{value * 100:.{decimals}f} %"
