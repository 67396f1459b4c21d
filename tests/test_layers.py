"""Imports point down only: the table of layers, and a checker that says which line breaks it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import amsc.errors

SOURCE = Path(amsc.errors.__file__).parent

# Part of the package (first name after `amsc.`) -> layer. A part may import its own and lower layers.
LAYERS = {
    "__main__": 8,
    "": 8,  # amsc/__init__.py gathers the public names
    "cli": 7,
    "compress": 6,
    "pick": 6,
    "scan": 6,
    "settings": 6,
    "target": 6,
    "budget": 6,
    "search": 6,
    "keeping": 6,
    "live_memory": 6,
    "timing": 6,
    "job": 6,
    "run_folder": 6,
    "training": 5,
    "surgery": 5,
    "measure": 5,
    "export": 5,
    "report": 5,
    "penalty": 4,
    "structure": 3,
    "records": 2,
    "model_access": 1,
    "models": 1,
    "data": 1,
    "tasks": 1,
    "errors": 0,
    "typing": 0,
}
# Parts of this layer do not import each other.
STRANGERS = 5


def imported_parts(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[int, str, str]]:
    """(line, module as written, part of amsc) of every import of amsc; `package` is the importing file's
    own package, for relative imports. Imports inside functions and under TYPE_CHECKING count too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from amsc import errors` imports the module amsc.errors
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "amsc" else [module]
        else:
            continue
        for name in names:
            root, *rest = name.split(".")
            if root == "amsc":
                yield node.lineno, name, rest[0] if rest else ""


def violations(source: str, file: str) -> list[str]:
    """A sentence for each import in `source` that the layers forbid; `file` is its path below amsc/."""
    path = Path(file)
    package = ("amsc", *path.parent.parts)
    part = path.parts[0].removesuffix(".py")
    part = "" if part == "__init__" else part
    if part not in LAYERS:
        return [f"{file} belongs to no layer; put '{part}' in the table of tests/test_layers.py."]
    found = []
    for line, module, other in imported_parts(ast.parse(source), package):
        if other == part:
            continue
        if other not in LAYERS:
            found.append(f"{file}, line {line}: imports {module}, which belongs to no layer.")
        elif LAYERS[other] > LAYERS[part]:
            found.append(
                f"{file}, line {line}: imports {module}, but {part} is in layer {LAYERS[part]} and may not"
                f" import from layer {LAYERS[other]} above it; take what you need as an argument."
            )
        elif LAYERS[other] == LAYERS[part] == STRANGERS:
            found.append(
                f"{file}, line {line}: imports {module}, but {part} and {other} are strangers in layer {STRANGERS};"
                " let compress.py hand the value over."
            )
    return found


def test_imports_point_down() -> None:
    files = sorted(SOURCE.rglob("*.py"))
    assert len(files) > 5
    found = [s for f in files for s in violations(f.read_text(), f.relative_to(SOURCE).as_posix())]
    assert not found, "\n".join(found)


def test_upward_import_is_found() -> None:
    (sentence,) = violations("import torch\n\nfrom amsc.penalty.prox import nested\n", "structure/tracer.py")
    assert "structure/tracer.py, line 3" in sentence
    assert "amsc.penalty.prox" in sentence
    assert "layer 4 above" in sentence


def test_upward_import_inside_a_function_is_found() -> None:
    assert violations("def f() -> None:\n    import amsc.cli\n", "data/digits.py")


def test_upward_import_in_other_spellings_is_found() -> None:
    assert violations("from amsc import compress\n", "surgery/cut.py")
    assert violations("from .. import compress\n", "surgery/cut.py")
    assert violations("from ..cli import main\n", "surgery/cut.py")
    assert violations("import amsc\n", "surgery/cut.py"), "the root gathers everything, so it is above everything"


def test_strangers_are_kept_apart() -> None:
    (sentence,) = violations("from amsc.surgery import cut\n", "training/loop.py")
    assert "training and surgery are strangers" in sentence


def test_module_without_layer_is_found() -> None:
    assert "no layer" in violations("", "utils.py")[0]


def test_downward_and_own_imports_are_allowed() -> None:
    source = "from amsc.errors import CutError\nfrom amsc.surgery.plan import CutPlan\nfrom .plan import CutPlan\n"
    assert violations(source, "surgery/cut.py") == []
