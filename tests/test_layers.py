"""Imports point down only: the table of floors, and a checker that says which line breaks it."""

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import amsc.errors

SOURCE = Path(amsc.errors.__file__).parent

# From the ground up: a part (a path below amsc/) may import its own floor and those below it. Strangers do not know
# each other: what one needs of another is handed over by limits/ or jobs/.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "parallel", "progress", "stopping", "typing"),
    ("borrowing", "tensor_files", "storage", "records", "words", "models"),
    ("data", "imitation", "tasks"),
    (
        "structure/labels",
        "structure/parts",
        "structure/names",
        "structure/lone_layers",
        "structure/group_changes",
        "structure/structure",
        "structure/words",
        "structure/cutting",
        "structure/costing",
        "structure/cost_terms",
        "structure/rounding",
        "structure/selection",
        "structure/alike_layers",
        "structure/stored_sizes",
    ),
    ("structure/tracing",),
    ("structure/operators",),
    ("structure/grouping",),
    ("structure/blocks",),
    ("structure",),
    ("settings",),
    ("penalty",),
    ("measurement", "export", "report", "surgery", "training/steps"),
    ("training/removal",),
    ("training/gates",),
    ("training/path",),
    ("training",),
    ("reconstruction",),
    ("criteria",),
    ("regularizers",),
    ("limits",),
    ("jobs",),
    ("bench",),
    ("cli", "trainers"),
    ("__main__", "public", ""),  # amsc/__init__.py hands on the public names
)
FLOOR = {part: number for number, parts in enumerate(FLOORS) for part in parts}
STRANGERS = ("measurement", "export", "report", "surgery", "training")


def part_of(path: str) -> str | None:
    """The part that a file or module (slashes, no ending) belongs to: its longest name in the table."""
    pieces = path.split("/")
    names = ("/".join(pieces[:count]) for count in range(len(pieces), 0, -1))
    return next((name for name in names if name in FLOOR), "" if path in ("", "__init__") else None)


def imported_modules(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """(line, module of amsc) of every import; `package` is the importing file's own package, for relative imports.
    Imports inside functions and under TYPE_CHECKING count too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names] if is_package(module) else [module]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "amsc")


def is_package(module: str) -> bool:
    """`from amsc import errors` imports the module amsc.errors."""
    return (SOURCE.parent / module.replace(".", "/") / "__init__.py").exists()


def violations(source: str, file: str) -> list[str]:
    """A sentence for each import in `source` that the floors forbid; `file` is its path below amsc/."""
    path = Path(file).with_suffix("")
    package = ("amsc", *path.parent.parts)
    part = part_of(path.as_posix().removesuffix("/__init__"))
    if part is None:
        return [f"{file} belongs to no floor; put '{path.parts[0]}' in the table of tests/test_layers.py."]
    found = []
    for line, module in imported_modules(ast.parse(source), package):
        other = part_of(module.removeprefix("amsc").removeprefix(".").replace(".", "/"))
        here, there = part.split("/")[0], (other or "").split("/")[0]
        if other is None:
            found.append(f"{file}, line {line}: imports {module}, which belongs to no floor.")
        elif FLOOR[other] > FLOOR[part]:
            found.append(
                f"{file}, line {line}: imports {module}, but {part} is on floor {FLOOR[part]} and may not"
                f" import from floor {FLOOR[other]} above it; take what you need as an argument."
            )
        elif here != there and here in STRANGERS and there in STRANGERS:
            found.append(
                f"{file}, line {line}: imports {module}, but {here} and {there} are strangers;"
                " let jobs/ hand the value over."
            )
    return found


def test_imports_point_down() -> None:
    files = sorted(SOURCE.rglob("*.py"))
    assert len(files) > 5
    found = [s for f in files for s in violations(f.read_text(), f.relative_to(SOURCE).as_posix())]
    assert not found, "\n".join(found)


def test_upward_import_is_found() -> None:
    (sentence,) = violations("import torch\n\nfrom amsc.penalty.prox import nested\n", "structure/tracing/tracer.py")
    assert "structure/tracing/tracer.py, line 3" in sentence
    assert "amsc.penalty.prox" in sentence
    assert "structure/tracing is on floor" in sentence


def test_upward_import_inside_a_function_is_found() -> None:
    assert violations("def f() -> None:\n    import amsc.cli\n", "data/digits.py")


def test_upward_import_in_other_spellings_is_found() -> None:
    assert violations("from amsc import jobs\n", "surgery/apply.py")
    assert violations("from .. import jobs\n", "surgery/apply.py")
    assert violations("from ..cli import main\n", "surgery/apply.py")
    assert violations("import amsc\n", "surgery/apply.py"), "the root gathers everything, so it is above everything"


def test_strangers_are_kept_apart() -> None:
    (sentence,) = violations("from amsc.surgery import cut\n", "training/steps/loop.py")
    assert "training and surgery are strangers" in sentence


def test_module_without_floor_is_found() -> None:
    assert "no floor" in violations("", "utils.py")[0]


def test_downward_and_own_imports_are_allowed() -> None:
    source = "from amsc.errors import CutError\nfrom amsc.surgery.plan import CutPlan\nfrom .plan import CutPlan\n"
    assert violations(source, "surgery/apply.py") == []


def test_rooms_of_one_package_have_an_order() -> None:
    assert violations("from amsc.training.path.walk import walk\n", "training/steps/loop.py")
    assert violations("from amsc.structure.from_model import trace\n", "structure/labels/ledger.py")


def test_no_function_hides_a_module() -> None:
    packages = [file.parent for file in SOURCE.rglob("__init__.py")]
    assert len(packages) > 15
    for package in packages:
        name = ".".join(("amsc", *package.relative_to(SOURCE).parts))
        face = importlib.import_module(name)
        hidden = [
            each.name for each in pkgutil.iter_modules([str(package)]) if callable(getattr(face, each.name, None))
        ]
        assert not hidden, f"{name} exports functions with the names of its modules: {', '.join(hidden)}"
