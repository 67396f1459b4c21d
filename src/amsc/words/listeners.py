"""How far a run is, for people: a bar on a terminal or in a notebook, a line per piece of work elsewhere."""

import contextlib
import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from amsc.progress import Progress as Listener
from amsc.words.amounts import format_count, format_seconds
from amsc.words.record import went_back

__all__ = ["BarProgress", "LineProgress", "is_live", "listening_on"]


# Depth and width count the steps of the path together, so they share a bar.
SHARED = {"depth": "path", "width": "path"}


@contextlib.contextmanager
def listening_on(console: Console) -> Iterator[Listener]:
    """The listener that suits the console, for the time of the run."""
    if not is_live(console):
        yield LineProgress(partial(console.print, markup=False, emoji=False, highlight=False, soft_wrap=True))
        return
    columns = (
        TextColumn("{task.description:>8}", table_column=Column(min_width=8)),
        BarColumn(table_column=Column(min_width=12, max_width=24)),
        TextColumn("{task.fields[done]:>4}", table_column=Column(min_width=4)),
        _Seconds(table_column=Column(min_width=6, no_wrap=True)),
        TextColumn("{task.fields[numbers]}", table_column=Column(no_wrap=True, ratio=1)),
    )
    with Progress(*columns, console=console) as bars:
        yield BarProgress(bars)


def is_live(console: Console) -> bool:
    """Whether what was written can be overwritten: on a terminal, and in a notebook that has ipywidgets."""
    return console.is_terminal or (console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None)


class BarProgress:
    """One bar per stage of the run, the latest numbers beside it."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._numbers: dict[str, float] = {}
        self._depth = _Depth()

    def update(self, phase: str, step: int, steps: int, **values: float) -> None:
        """Move the bar of `phase`."""
        if words := self._depth.words(phase, values):
            self._bars.console.print(words, markup=False, emoji=False, highlight=False, soft_wrap=True)
        bar = SHARED.get(phase, phase)
        if bar not in self._tasks:
            for task in self._tasks.values():
                self._bars.stop_task(task)
            self._tasks[bar], self._numbers = self._bars.add_task(phase, total=None, numbers="", done=""), {}
        self._numbers |= values
        counted = steps > 1 or step >= steps > 0  # of one piece of work nobody knows how far it is
        self._bars.update(
            self._tasks[bar],
            description=phase,
            completed=step,
            total=steps if counted else None,
            done=f"{step / max(1, steps):.0%}" if counted else "",
            numbers=_numbers(self._numbers),
        )


class _Seconds(ProgressColumn):
    """The time since a bar began, and what is left of it by the pace until now."""

    def render(self, task: Task) -> Text:
        """In words."""
        taken, left = task.finished_time or task.elapsed or 0.0, task.time_remaining
        words = f"{taken:.0f} s" if task.finished or not left else f"{taken:.0f} s, {format_seconds(left)} to go"
        return Text(words, style="progress.elapsed")


TOLD_AT_ONCE = ("macs", "cost", "judged", "score", "rolled_back")


class LineProgress:
    """A line at the start of a phase, after each quarter of it, and whenever the network became smaller or has a new
    score; `say` takes each."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say, self._depth = say, _Depth()
        self._last: tuple[object, ...] = ()
        self._seen: dict[str, float | None] = {}

    def update(self, phase: str, step: int, steps: int, **values: float) -> None:
        """Print the numbers if there is something new in them."""
        if words := self._depth.words(phase, values):
            self._say(words)
        self._seen |= {name: values[name] for name in TOLD_AT_ONCE if name in values}
        now = (phase, 4 * step // max(steps, 1), *(self._seen.get(name) for name in TOLD_AT_ONCE))
        is_one_piece = steps == 1 and not values
        if now != self._last and not (is_one_piece and step):
            numbers = _numbers(values)
            place = f" {step}/{steps}" if steps and not is_one_piece else ""
            self._say(f"{phase}{place}" + (f": {numbers}" if numbers else ""))
        self._last = now


class _Depth:
    """Knows how many blocks the depth phase left, and says so if width begins with more."""

    def __init__(self) -> None:
        self._blocks = math.inf

    def words(self, phase: str, values: Mapping[str, float]) -> str:
        """Why blocks are back, once, where they are; else ""."""
        blocks, before = values.get("blocks"), self._blocks
        if blocks is None or phase not in SHARED:
            return ""
        self._blocks = blocks if phase == "depth" else math.inf
        is_back = phase == "width" and before < blocks
        return went_back(int(before), int(blocks)) if is_back else ""


COUNTS = {
    "blocks": "{:.0f} blocks left",
    "channels": "{:.0f} channels left",
    "tried": "priced {:.0f}",
    "judged": "judged {:.0f}",
    "rolled_back": "the loss was no number: taken back, and on with the learning rate {:.3g}",
    "cost": "the network of {:.1%} of the cost",
}


def _numbers(values: Mapping[str, float]) -> str:
    return ", ".join(_words(name, value) for name, value in values.items())


def _words(name: str, value: float) -> str:
    if name in COUNTS:
        return COUNTS[name].format(value)
    return f"{format_count(value)} MACs" if name == "macs" else f"{name} {value:.4f}"
