"""What the documents say is so: files that they name exist, links lead somewhere, code runs, commands are known."""

import re
import shlex
from pathlib import Path

import pytest

from amsc.cli.commands import build_parser
from amsc.cli.parser import parse
from libraries import library

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "amsc"
PAGES = sorted((ROOT / "docs").rglob("*.md"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(page for page in PAGES if page.parent.name != "decisions")]


def code_of(document: Path) -> str:
    """Its blocks of Python, each at its own lines."""
    lines, is_code = list[str](), False
    for line in document.read_text().splitlines():
        is_fence = line.startswith("```")
        lines.append(line if is_code and not is_fence else "")
        is_code = line == "```python" if is_fence else is_code
    return "\n".join(lines) if any(lines) else ""


def commands_of(document: Path) -> list[str]:
    """Lines that begin with the command, without comments and redirections."""
    lines = re.findall(r"^    amsc (.*)$", document.read_text(), re.MULTILINE)
    return [re.split(r"\s+[#>]", line)[0] for line in lines]


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
        for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text())
    ]
    assert len(links) > 60
    assert not [(document.name, target) for document, target in links if not (document.parent / target).exists()]


def test_every_page_can_be_reached() -> None:
    listed = (ROOT / "mkdocs.yml").read_text()
    notes = (ROOT / "docs" / "decisions" / "index.md").read_text()
    names = [(page, page.relative_to(ROOT / "docs").as_posix()) for page in PAGES]
    assert len(names) > 30
    assert not [name for page, name in names if name not in listed and f"({page.name})" not in notes]


ELSEWHERE = {"my-trainer.md"}  # run block by block in tests/trainers, as far as the libraries are there
NEEDED = {"transformers.md": "transformers"}
WITH_CODE = [document for document in DOCUMENTS if code_of(document) and document.name not in ELSEWHERE]


@pytest.mark.parametrize("document", WITH_CODE, ids=lambda document: document.name)
def test_code_runs(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if document.name in NEEDED:
        library(NEEDED[document.name])
    monkeypatch.chdir(tmp_path)
    code = compile(code_of(document), str(document), "exec")
    exec(code, {"__name__": document.stem})
    assert code.co_names, "it names something"


def test_commands_are_understood() -> None:
    commands = [(document.name, command) for document in DOCUMENTS for command in commands_of(document)]
    assert len(commands) > 20
    parser = build_parser()
    for _, command in commands:
        parse(parser, shlex.split(command))


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) < 900
