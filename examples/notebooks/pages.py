"""The notebooks as pages of the site: MkDocs calls this for each of its pages (`hooks` in mkdocs.yml)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NOTEBOOKS = Path(__file__).parent
PLACE = "notebooks/"
"""The folder of docs/ whose pages only name a notebook, where nothing builds them."""


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """The page as it is, or the notebook that it stands for."""
    place = page.file.src_uri
    if not place.startswith(PLACE):
        return markdown
    return as_markdown(NOTEBOOKS / f"{Path(place).stem}.ipynb")


def as_markdown(file: Path) -> str:
    """Its cells with what came out of them; the file itself is named at the end."""
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    parts = [part for cell in cells for part in _parts(cell)]
    return "\n\n".join([*parts, f"*This is `examples/notebooks/{file.name}`.*"])


def _parts(cell: dict[str, Any]) -> Iterator[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "text/html" in data:
            yield "".join(data["text/html"])
        else:
            text = "".join(output.get("text", data.get("text/plain", "")))
            yield f"```text\n{text.rstrip()}\n```"
