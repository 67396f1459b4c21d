"""Progress: a bar on a terminal, few lines elsewhere, nothing when quiet."""

import io

from rich.console import Console as RichConsole

from amsc.cli.console import Console


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _told(stream: io.StringIO, *, quiet: bool = False) -> str:
    console = Console(io.StringIO(), stream, quiet=quiet)
    if stream.isatty():  # a terminal of known size and kind, whatever the environment says
        console.notes = RichConsole(file=stream, width=140, force_terminal=True, _environ={"TERM": "xterm"})
    with console.progress() as listener:
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


def test_a_new_score_gets_a_line_with_its_loss() -> None:
    stream = io.StringIO()
    with Console(io.StringIO(), stream).progress() as listener:
        for step, values in ((1, {}), (3, {"score": 0.5}), (4, {}), (7, {"score": 0.75})):
            listener.update("finetune", step, 100, loss=0.25, **values)
    assert stream.getvalue().splitlines() == [
        "finetune 1/100: loss 0.2500",
        "finetune 3/100: loss 0.2500, score 0.5000",
        "finetune 7/100: loss 0.2500, score 0.7500",
    ]


def told_of(*updates: tuple[str, dict[str, float]], stream: io.StringIO | None = None) -> list[str]:
    stream = stream or io.StringIO()
    console = Console(io.StringIO(), stream)
    if stream.isatty():
        console.notes = RichConsole(file=stream, width=140, force_terminal=True, _environ={"TERM": "xterm"})
    with console.progress() as listener:
        for phase, values in updates:
            listener.update(phase, 0, 10, **values)
    return stream.getvalue().splitlines()


def test_blocks_that_come_back_are_explained_once() -> None:
    back = ("depth", {"blocks": 3}), ("width", {"blocks": 4}), ("width", {"blocks": 4})
    for stream in (io.StringIO(), _Terminal()):
        said = [line for line in told_of(*back, stream=stream) if "width goes on from an earlier network" in line]
        assert len(said) == 1
        assert "with 4 blocks and not 3: " in said[0]
    for usual in ((("depth", {"blocks": 3}), ("width", {"blocks": 3})), (("width", {"blocks": 4}),)):
        assert not any("earlier" in line for line in told_of(*usual))


def test_each_network_that_is_fine_tuned_has_a_name() -> None:
    lines = told_of(("finetune", {"cost": 0.5, "loss": 1.0}), ("finetune", {"cost": 0.75, "loss": 1.0}))
    assert lines == [
        "finetune 0/10: the network of 50.0% of the cost, loss 1.0000",
        "finetune 0/10: the network of 75.0% of the cost, loss 1.0000",
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
    with Console(io.StringIO(), stream).progress() as listener:
        listener.update("finetune", 0, 0)
    assert stream.getvalue() == "finetune\n"
