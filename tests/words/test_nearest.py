"""What was meant by what was typed: one function says it, everywhere in the same words."""

from pathlib import Path

import pytest

import amsc
from amsc.words.nearest import nearest


@pytest.mark.parametrize(
    ("word", "meant"),
    [("mac", "macs"), ("ResNet2O", "resnet20"), ("LATENCY", "Latency"), ("layr3", "layer3"), ("xyzzy", None)],
)
def test_the_nearest_word_is_asked_for(word: str, meant: str | None) -> None:
    known = ("macs", "resnet20", "resnet110", "Latency", "layer1", "layer3")
    assert nearest(word, known) == (f"; did you mean {meant}?" if meant else "")


def test_no_other_file_looks_for_near_words_itself() -> None:
    source = Path(amsc.__file__).parent
    asking = {file.relative_to(source).as_posix() for file in source.rglob("*.py") if "difflib" in file.read_text()}
    assert asking == {"words/nearest.py"}
