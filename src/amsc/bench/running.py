"""A bench, cell by cell: what is there is not made again, and what fails is a result with its reason."""

import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from torch import nn

from amsc.bench.making import Lab
from amsc.bench.recipe import Cell, Recipe
from amsc.bench.store import Outcome, Store, digest, slug
from amsc.data import Data
from amsc.errors import DataError
from amsc.jobs.fingerprint import fingerprint, weights_fingerprint
from amsc.jobs.preparation import threads_and_determinism
from amsc.jobs.run_lock import claimed
from amsc.jobs.stages.record import versions
from amsc.measurement import machine_stamp
from amsc.storage import write_atomically
from amsc.tasks import Task

__all__ = ["Hears", "bench"]


class Hears(Protocol):
    """Hears of each cell that is about to be made, and of what became of it."""

    def begin(self, cell: Cell, number: int, count: int) -> None:
        """`cell` is next, `number` of `count`, counted from 1."""

    def end(self, outcome: Outcome) -> None:
        """It is done."""


class _Deaf:
    def begin(self, cell: Cell, number: int, count: int) -> None:
        """Nothing happens."""

    def end(self, outcome: Outcome) -> None:
        """Nothing happens."""


def bench(
    recipe: Recipe,
    networks: Mapping[str, nn.Module],
    data: Data,
    task: Task | None,
    out: str | Path,
    *,
    retry: bool = False,
    mixed: bool = False,
    hears: Hears = _Deaf(),  # noqa: B008 - it has no state
) -> Store:
    """All cells of a recipe that are not in the folder `out` yet, made one after the other; each is written at once.

    A cell that fails is kept with the reason, and the others go on; the traceback is beside it.

    Args:
        networks: by the names of the recipe; they are not changed.
        task: classification if None.
        retry: try those again that have failed.
        mixed: go on in a folder with cells of other versions and machines, and make none of them again.

    Raises:
        DataError: a network of the recipe is not given.
        RunFolderError: the folder holds something else, or another process writes to it.
    """
    if missing := set(recipe.networks) - set(networks):
        raise DataError(f"the recipe names networks that were not given: {', '.join(sorted(missing))}")
    folder, stamp = Path(out), {"amsc": versions()["amsc"], **machine_stamp()}
    with claimed(folder, is_needed=True), threads_and_determinism(recipe.settings):
        known = fingerprint(data)
        facts = {name: digest([weights_fingerprint(networks[name]), known]) for name in recipe.networks}
        store = Store(folder, recipe, stamp, facts, mixed=mixed)
        lab = Lab(recipe, networks, data, task, folder, facts)
        cells = [cell for cell in recipe.cells() if not store.has(cell, retry=retry)]
        for number, cell in enumerate(cells, start=1):
            hears.begin(cell, number, len(cells))
            hears.end(_made(lab, store, cell))
        return store


def _made(lab: Lab, store: Store, cell: Cell) -> Outcome:
    choices = store.choices_of(cell)
    try:
        judged = lab.made(cell)
    except Exception as error:  # a user's network, loss or data may raise anything, and the other cells go on
        write_atomically(
            store.folder / "cells" / f"{slug(cell)}.txt", traceback.format_exc().encode(), make_folder=True
        )
        reason = (str(error).splitlines() or [""])[0]
        outcome = Outcome(cell, choices, store.stamp, failed=f"{type(error).__name__}: {reason}")
        store.keep(outcome, None)
        return outcome
    plain = {key: value for key, value in vars(judged).items() if key != "scores"}
    outcome = Outcome(cell, choices, store.stamp, float(judged.scores.double().mean()), **plain)
    store.keep(outcome, judged.scores)
    return outcome
