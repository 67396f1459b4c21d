"""The notebooks run from beginning to end, say what their texts promise, and hold the outputs of such a run."""

import re
from pathlib import Path
from typing import Any

import pytest
from nbformat import read, validate
from notebooks.pages import as_markdown
from notebooks.run import NOTEBOOKS, executed

PROMISED = {
    "make-it-smaller": (
        r"\d+\.\d% of the test images are right",
        r"channels of group blocks\.1\.first \(filter, affine\)",
        r"blocks\.\d\.first +16 -> (\d+|gone)",
        r"depth +\d+\.\d% of the MACs, \d blocks, accuracy \d+\.\d%",
        r"config\.json model\.safetensors",
        r"small\.onnx: \d+ KiB, as the network to \de-\d+",
        r"64 images in onnxruntime: \d+ -> \d+ us",
    ),
    "no-labels-own-loop": (
        r"torch\.Size\(\[64, 1, 8, 8\]\)",
        r"the same class for \d+\.\d% of images that no loader had",
        r"Penalty\(336 channels, 7 blocks",
        r"\d+ of 336 channels are zero",
        r"\d+\.\d% of the multiply-adds are left; the outputs differ by \de-\d+",
        r"epoch 12: mean distance \d\.\d+",
        r"own loop +\d+\.\d% right, [\d,]+ multiply-adds",
    ),
}
"""What each prints, in this order."""
OF_THIS_MACHINE = r"/(tmp|home|root|work|usr|opt|Users)/|site-packages|Traceback"


def code_of(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(cell: Any) -> list[tuple[str, ...]]:
    """What sort of things came out of a cell: "stream" and where, or the formats of a value."""
    return [(each.output_type, *sorted(each.get("data", [each.get("name", "")]))) for each in cell.outputs]


def text_of(notebook: Any) -> str:
    outputs = [each for cell in code_of(notebook) for each in cell.outputs]
    return "\n".join(each.get("text", "") or each.get("data", {}).get("text/plain", "") for each in outputs)


def numbers_after(words: str, text: str) -> list[int]:
    found = re.search(words + r"([\d,]+) -> ([\d,]+)", text)
    assert found, words
    return [int(number.replace(",", "")) for number in found.groups()]


def check_promises(name: str, text: str) -> None:
    """What was promised stands there, one after the other."""
    assert re.search(".*?".join(PROMISED[name]), text, re.DOTALL), [p for p in PROMISED[name] if not re.search(p, text)]


def test_all_notebooks_are_known() -> None:
    assert [file.stem for file in NOTEBOOKS] == sorted(PROMISED)


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_what_is_stored_is_a_whole_run(file: Path) -> None:
    notebook = read(file, as_version=4)
    validate(notebook)
    code = code_of(notebook)
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "python examples/notebooks/run.py"
    assert {kind[0] for cell in code for kind in kinds(cell)} == {"stream", "execute_result"}
    assert ("stream", "stderr") not in [kind for cell in code for kind in kinds(cell)]
    assert not re.findall(OF_THIS_MACHINE, file.read_text())
    assert all(len(cell.source.splitlines()) <= 25 for cell in code), "cells are short"
    check_promises(file.stem, text_of(notebook))


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_it_runs_and_what_is_stored_is_of_the_same_kind(file: Path) -> None:
    """Takes half a minute: what it shows is a whole compression. Its last cell holds its own assertions."""
    stored, new = read(file, as_version=4), executed(file)
    assert [cell.source for cell in new.cells] == [cell.source for cell in stored.cells]
    assert [kinds(cell) for cell in code_of(new)] == [kinds(cell) for cell in code_of(stored)]
    assert "assert" in code_of(new)[-1].source
    text = text_of(new)
    check_promises(file.stem, text)
    if file.stem == "make-it-smaller":
        before, after = numbers_after("multiply-adds: ", text)
        assert 0.3 * before < after <= 0.4 * before
        dense, small = numbers_after("in onnxruntime: ", text)
        assert small < dense
    else:
        right = [float(share) for share in re.findall(r"([\d.]+)% right", text)]
        assert len(right) == 3
        assert min(right) > 90
        assert re.search(r"divergence from the dense network", str(new.cells)), "it is judged without labels"


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_the_page_of_a_notebook_has_its_cells_and_outputs(file: Path) -> None:
    page, notebook = as_markdown(file), read(file, as_version=4)
    assert all(cell.source in page for cell in notebook.cells)
    shown = [each for cell in code_of(notebook) for each in cell.outputs]
    assert len(shown) > 5
    for each in shown:
        html = each.get("data", {}).get("text/html")
        assert (html or each.get("text", "") or each.data["text/plain"]).rstrip() in page
    assert (file.parents[2] / "docs" / "notebooks" / f"{file.stem}.md").exists()
