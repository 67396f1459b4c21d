"""What the documents say is so: files that they name exist, links lead somewhere, and their code runs."""

import re
from pathlib import Path

import pytest

from libraries import library

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "amsc"
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
WITH_CODE = [ROOT / "docs" / name for name in ("add-a-task.md", "detectors.md", "transformers.md")]
NEEDED = {"transformers.md": "transformers"}


def named_files(text: str) -> list[str]:
    """Python files that are named in backticks with their folder."""
    return re.findall(r"`((?:\w+/)+\w+\.py)`", text)


def test_files_that_are_named_exist() -> None:
    named = {(document.name, name) for document in DOCUMENTS for name in named_files(document.read_text())}
    assert len(named) > 20
    bases = (ROOT, SOURCE, SOURCE / "structure", SOURCE / "training")
    missing = [place for place in named if not any((base / place[1]).exists() for base in bases)]
    assert not missing


def test_links_lead_somewhere() -> None:
    links = [
        (document, target)
        for document in [*DOCUMENTS, *sorted((ROOT / "docs" / "decisions").glob("*.md"))]
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text())
    ]
    assert len(links) > 10
    assert not [(document.name, target) for document, target in links if not (document.parent / target).exists()]


@pytest.mark.parametrize("document", WITH_CODE, ids=lambda document: document.name)
def test_code_runs(document: Path) -> None:
    if document.name in NEEDED:
        library(NEEDED[document.name])
    code = "\n".join(re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL))
    assert "assert" in code
    exec(compile(code, str(document), "exec"), {"__name__": document.stem})
