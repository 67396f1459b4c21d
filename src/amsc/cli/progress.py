"""How far a run is: a bar on a terminal, a line per piece of work elsewhere, nothing when quiet."""

import contextlib
import math
from collections.abc import Iterator

from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from amsc.cli.console import Console
from amsc.progress import NoProgress
from amsc.progress import Progress as Listener
from amsc.words.amounts import format_count
from amsc.words.record import went_back

__all__ = ["BarProgress", "LineProgress", "progress"]


# Depth and width count the steps of the path together, so they share a bar.
SHARED = {"depth": "path", "width": "path"}


class BarProgress:
    """One bar per stage of the run, the latest numbers beside it."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._depth = _Depth()

    def update(self, phase: str, step: int, steps: int, **values: float) -> None:
        """Move the bar of `phase`."""
        if words := self._depth.words(phase, values):
            self._bars.console.print(words, markup=False, highlight=False, soft_wrap=True)
        bar = SHARED.get(phase, phase)
        if bar not in self._tasks:
            for task in self._tasks.values():
                self._bars.stop_task(task)
            self._tasks[bar] = self._bars.add_task(phase, total=steps, numbers="")
        self._bars.update(self._tasks[bar], description=phase, completed=step, total=steps, numbers=_numbers(values))


class LineProgress:
    """A line at the start of a phase, after each quarter of it, and whenever the network became smaller."""

    def __init__(self, console: Console) -> None:
        self._console, self._depth = console, _Depth()
        self._last: tuple[str, int, float | None, float | None] | None = None

    def update(self, phase: str, step: int, steps: int, **values: float) -> None:
        """Print the numbers if there is something new in them."""
        if words := self._depth.words(phase, values):
            self._console.note(words)
        now = (phase, 4 * step // max(steps, 1), values.get("macs"), values.get("cost"))
        if now != self._last:
            numbers = _numbers(values)
            self._console.note(f"{phase} {step}/{steps}" + (f": {numbers}" if numbers else ""))
        self._last = now


class _Depth:
    """Knows how many blocks the depth phase left, and says so if width begins with more."""

    def __init__(self) -> None:
        self._blocks = math.inf

    def words(self, phase: str, values: dict[str, float]) -> str:
        """Why blocks are back, once, where they are; else ""."""
        blocks, before = values.get("blocks"), self._blocks
        if blocks is None or phase not in SHARED:
            return ""
        self._blocks = blocks if phase == "depth" else math.inf
        is_back = phase == "width" and before < blocks
        return went_back(int(before), int(blocks)) if is_back else ""


def _numbers(values: dict[str, float]) -> str:
    words = []
    for name, value in values.items():
        if name in ("blocks", "channels"):
            words.append(f"{value:.0f} {name} left")
        elif name == "cost":
            words.append(f"the network of {value:.1%} of the cost")
        else:
            words.append(f"{format_count(value)} MACs" if name == "macs" else f"{name} {value:.4f}")
    return ", ".join(words)


@contextlib.contextmanager
def progress(console: Console) -> Iterator[Listener]:
    """The listener that suits the console, for the time of the run."""
    if console.quiet:
        yield NoProgress()
    elif not console.notes.is_terminal:
        yield LineProgress(console)
    else:
        with Progress(
            TextColumn("{task.description:>8}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[numbers]}"),
            console=console.notes,
        ) as bars:
            yield BarProgress(bars)
