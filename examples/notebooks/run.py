"""Runs the notebooks beside it and writes what comes out into them.

    python examples/notebooks/run.py

What their cells write goes into a folder that is thrown away. Needs `amsc[dev]`.
"""

import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = sorted(Path(__file__).parent.glob("*.ipynb"))


def executed(file: Path) -> nbformat.NotebookNode:
    """The notebook with new outputs; an error in a cell is raised."""
    notebook = nbformat.read(file, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        place = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=600, resources=place, record_timing=False, coalesce_streams=True).execute()
    notebook.metadata.language_info = {"name": "python"}
    return notebook


if __name__ == "__main__":
    for file in NOTEBOOKS:
        nbformat.write(executed(file), file)
        print(file.name)
