"""Progress: a bar on a terminal, few lines elsewhere, nothing when quiet."""

import io

from rich.console import Console as RichConsole

from amsc.cli.console import Console
from amsc.cli.progress import progress


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _told(stream: io.StringIO, *, quiet: bool = False) -> str:
    console = Console(io.StringIO(), stream, quiet=quiet)
    if stream.isatty():  # a terminal of known size and kind, whatever the environment says
        console.notes = RichConsole(file=stream, width=140, force_terminal=True, _environ={"TERM": "xterm"})
    with progress(console) as listener:
        for step in range(101):
            listener.update("depth", step, 100, loss=0.5, blocks=9.0, channels=400.0, macs=2.5e6)
        listener.update("width", 0, 100, loss=0.25, blocks=8, channels=390, macs=2.0e6)
        listener.update("width", 1, 100, macs=1.0e6)
    return stream.getvalue()


def test_a_file_gets_a_line_per_quarter_and_per_change_of_the_network() -> None:
    lines = _told(io.StringIO()).splitlines()
    assert lines[0] == "depth 0/100: loss 0.5000, 9 blocks left, 400 channels left, 2.5 M MACs"
    assert [line.split(":")[0] for line in lines] == [
        *(f"depth {step}/100" for step in (0, 25, 50, 75, 100)),
        "width 0/100",
        "width 1/100",
    ]


def test_a_terminal_gets_bars_with_the_numbers() -> None:
    text = _told(_Terminal())
    for word in ("width", "  1%", "1 M MACs"):
        assert word in text
    assert "depth" not in text.splitlines()[-1], "width goes on where depth ended, on the same bar"


def test_quiet_says_nothing() -> None:
    assert _told(io.StringIO(), quiet=True) == ""
    assert _told(_Terminal(), quiet=True) == ""


def test_a_phase_without_steps_is_told() -> None:
    stream = io.StringIO()
    with progress(Console(io.StringIO(), stream)) as listener:
        listener.update("finetune", 0, 0)
    assert stream.getvalue() == "finetune 0/0\n"
