"""An environment in which a wheel finds what it declares, and nothing else.

    .venv/bin/python .ci/wheel.py dist/amsc-0.1.0-py3-none-any.whl build/wheel-env

The wheel is installed by pip. What it requires without extras, and what that requires, is linked from the environment
that runs this, at its versions, which is quick where torch is large. A package that is used and not declared is
missing there, and one that is declared and not installed here, or in another version, is an error.
"""

import subprocess
import sys
import venv
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def main(wheel: Path, folder: Path) -> None:
    """Make the environment in `folder`, with the wheel in it, and say how much was linked."""
    venv.create(folder, clear=True, symlinks=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "-q", "--python", str(python), "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (installed,) = distributions(path=[str(site)])
    found = declared(installed)
    for each in found:
        link(each, site)
    print(f"{installed.name} {installed.version} with {', '.join(f'{one.name} {one.version}' for one in found)}")


def declared(root: Distribution) -> list[Distribution]:
    """What `root` requires, directly or not, as it is installed here."""
    found: dict[str, Distribution] = {}
    waiting = [(root, frozenset[str]())]
    seen = set()
    while waiting:
        one, extras = waiting.pop()
        for requirement in map(Requirement, one.requires or ()):
            key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
            if key in seen or not is_meant(requirement, extras):
                continue
            seen.add(key)
            found[key[0]] = installed_as(requirement, one)
            waiting.append((found[key[0]], key[1]))
    return list(found.values())


def is_meant(requirement: Requirement, extras: frozenset[str]) -> bool:
    """Whether it is required here, with these extras of the package that says so."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in (*extras, ""))


def installed_as(requirement: Requirement, by: Distribution) -> Distribution:
    """The package that is required, in this environment; the program ends if it is not there in such a version."""
    try:
        found = distribution(requirement.name)
    except PackageNotFoundError:
        sys.exit(f"{by.name} requires {requirement}, which is not installed here")
    if not requirement.specifier.contains(found.version, prereleases=True):
        sys.exit(f"{by.name} requires {requirement}, and {found.version} is installed here")
    return found


def link(one: Distribution, site: Path) -> None:
    """Link the files and folders of a package into `site`; a folder that several packages share is linked once."""
    tops = {file.parts[0] for file in one.files or () if file.parts[0] not in ("..", "__pycache__")}
    for top in tops:
        if not (site / top).exists():
            (site / top).symlink_to(Path(str(one.locate_file(top))).resolve())


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
