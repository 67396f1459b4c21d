"""What an installed amsc must do where there is nothing but what it declares: `build/wheel-env/bin/python -I`."""

import importlib
import pkgutil
from pathlib import Path

import amsc

NEED_EXTRAS = {"amsc.trainers.lightning", "amsc.trainers.transformers"}

place = Path(amsc.__file__).parent
assert "wheel-env" in place.parts, f"amsc comes from {place}, not from the wheel"
modules = [each.name for each in pkgutil.walk_packages([str(place)], "amsc.")]
for name in modules:
    if name not in NEED_EXTRAS and name != "amsc.__main__":
        importlib.import_module(name)
assert len(modules) > 250, modules
for name in amsc.__all__:
    getattr(amsc, name)

library = importlib.import_module("amsc.report.library")
files = sorted(file.name for file in (place / "report" / "page").iterdir())
assert {"report.css", "plot.umd.min.js", "scan.js"} <= set(files), files
assert all(library.part(file) for file in files)
assert (place / "py.typed").exists()
print(f"{len(modules)} modules, {len(amsc.__all__)} public names, {len(files)} files of pages")
