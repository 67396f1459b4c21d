"""The code on the page about other people's trainers runs, block by block, as a newcomer would type it."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "my-trainer.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
LIBRARIES = ("lightning", "transformers")


def missing(block: str) -> list[str]:
    """Libraries that the block needs and that are not installed."""
    needed = [name for name in LIBRARIES if re.search(rf"^(import|from) {name}\b", block, re.MULTILINE)]
    return [name for name in needed if importlib.util.find_spec(name) is None]


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    ran = [block for block in BLOCKS if not missing(block)]
    for block in ran:
        exec(compile(block, "my-trainer.md", "exec"), names)
    assert len(BLOCKS) >= 8
    assert len(ran) >= len(BLOCKS) - len(LIBRARIES)
    assert (tmp_path / "runs" / "small" / "config.json").exists()
