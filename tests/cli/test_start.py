"""What is answered at once: help, versions and typos need no torch, which takes seconds to import."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import amsc
from amsc.cli.commands import COMMANDS, EPILOG, build_parser
from amsc.models import ZOO

SOURCE = Path(amsc.__file__).parents[1]


@pytest.mark.parametrize(
    ("words", "code", "answer"),
    [
        (["--help"], 0, "a network needs, removes the others for good"),
        ([], 2, "usage: amsc"),
        (["--version"], 0, "amsc "),
        (["comprss", "resnet20"], 2, "did you mean compress?"),
        (["--jsn"], 2, "did you mean --json?"),
    ],
)
def test_it_is_answered_without_torch(words: list[str], code: int, answer: str, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('torch was imported')\n")  # found before torch
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{SOURCE}"}
    done = subprocess.run(
        [sys.executable, "-m", "amsc", *words], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, answer in done.stdout + done.stderr) == (code, True), done


def test_the_commands_say_of_themselves_what_is_said_of_them() -> None:
    whole, empty = build_parser().format_help(), build_parser(()).format_help()
    assert whole == empty
    assert all(re.search(rf"^    {name} +{re.escape(words)}$", empty, re.MULTILINE) for name, words in COMMANDS.items())
    assert list(COMMANDS) == re.findall(r"^    ([a-z]+) {2,}", empty, re.MULTILINE)


def test_the_networks_that_help_names_are_those_there_are() -> None:
    listed = EPILOG.partition("or one of\n")[2].partition(".\n")[0]
    assert re.split(r",\s+", listed) == list(ZOO)
