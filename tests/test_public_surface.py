"""Every public name is listed in a string `__all__` and documented."""

import ast
import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import amsc

SOURCE = Path(amsc.__file__).parent


FILES = [file.relative_to(SOURCE).as_posix() for file in sorted(SOURCE.rglob("*.py")) if file.name != "__main__.py"]


def module_name(file: str) -> str:
    return ".".join(("amsc", *Path(file).with_suffix("").parts)).removesuffix(".__init__")


def undocumented(module: ModuleType) -> list[str]:
    """Functions and classes in the module's `__all__` without a docstring of their own; public methods too.
    A constant needs none, having no place for one."""
    found = []
    for name in module.__all__:
        value = getattr(module, name)
        if not (inspect.isroutine(value) or inspect.isclass(value)):
            continue
        if not has_own_docstring(value):
            found.append(name)
        if inspect.isclass(value) and value.__module__.startswith("amsc"):
            methods = {n: m for n, m in vars(value).items() if inspect.isfunction(m) and not n.startswith("_")}
            # What a base class has documented need not be documented again.
            found += [f"{name}.{n}" for n, m in methods.items() if not inspect.getdoc(getattr(value, n))]
    return found


def has_own_docstring(value: object) -> bool:
    doc = vars(value).get("__doc__") if inspect.isclass(value) else inspect.getdoc(value)
    # dataclasses without a docstring get their signature as one
    return bool(doc) and not str(doc).startswith(f"{getattr(value, '__name__', '')}(")


def unlisted(tree: ast.Module) -> set[str]:
    """Public functions and classes defined at the top of the file that its `__all__` leaves out."""
    defined = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name[0] != "_"}
    return defined - listed(tree)


def listed(tree: ast.Module) -> set[str]:
    """The strings of the literal `__all__`; empty when there is none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def faults(file: str) -> list[str]:
    """What is wrong with the public names of a file, a sentence each; a package may hold nothing but its words."""
    tree = ast.parse((SOURCE / file).read_text())
    module = importlib.import_module(module_name(file))
    names = getattr(module, "__all__", [] if len(tree.body) == 1 else None)
    found = [] if module.__doc__ else ["no module docstring"]
    if names is None:
        return [*found, "no __all__"]
    found += ["__all__ holds something that is no string"] * any(not isinstance(name, str) for name in names)
    found += ["__all__ says a name twice"] * (len(set(names)) < len(names))
    found += [f"{name} is not documented" for name in (undocumented(module) if names else [])]
    return found + [f"{name} is not in __all__" for name in sorted(unlisted(tree))]


def test_public_names_are_listed_and_documented() -> None:
    assert len(FILES) > 100
    found = [f"{file}: {fault}" for file in FILES for fault in faults(file)]
    assert not found, "\n".join(found)


def test_root_holds_about_a_dozen_names() -> None:
    assert 8 <= len(amsc.__all__) <= 25


def test_the_root_hands_on_all_public_names_and_packages_and_nothing_else() -> None:
    public = importlib.import_module("amsc.public")
    assert amsc.__all__ == public.__all__
    for name in amsc.__all__:
        assert getattr(amsc, name) is getattr(public, name)
        assert name in dir(amsc)
    assert amsc.data is importlib.import_module("amsc.data")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        amsc.nothing  # noqa: B018


def test_importing_the_root_does_not_import_torch() -> None:
    words = "import sys, amsc; sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", words], env={**os.environ, "PYTHONPATH": str(SOURCE.parent)}).returncode
        == 0
    )


def test_checker_finds_what_is_missing() -> None:
    module = ModuleType("example")
    exec("__all__ = ['f', 'g', 'C']\ndef f(): 'Doc.'\ndef g(): pass\nclass C:\n    pass\n", vars(module))
    assert undocumented(module) == ["g", "C"]
    assert unlisted(ast.parse("__all__ = ['f']\ndef f(): pass\ndef g(): pass\ndef _h(): pass\n")) == {"g"}
