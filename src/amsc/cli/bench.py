"""`amsc bench`: networks, methods, budgets, seeds and epochs by the same code, to one table."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from torch import nn

from amsc.bench import Cell, Outcome, Recipe, bench, read_recipe
from amsc.bench.page import render_bench
from amsc.bench.table import entries, table_text
from amsc.cli.console import Console
from amsc.cli.opening import open_both, task_of, torch_as_set
from amsc.cli.parser import UsageError, add_command, add_output_flags
from amsc.cli.trust import functions_in
from amsc.data import Data
from amsc.settings import RunSettings
from amsc.storage import write_atomically
from amsc.tasks import Task
from amsc.words.amounts import SHARES, score_format

__all__ = ["add_parser", "run"]

DESCRIPTION = """\
Compare methods on networks of your own: one dense network, one split, the same epochs
of the same fine-tuning for all, and every cell (network, method, budget, seed, epochs) a
file that is made once. Called again, a bench goes on where it was stopped.

The recipe is a TOML file:

  [bench]
  data = "parquet:cifar10"
  networks = ["resnet20"]
  budgets = ["macs=60%", "macs=45%"]
  seeds = [0, 1, 2]
  epochs = [0, 1]            # of all training after the dense network's
  dense_epochs = 2
  [settings]                 # of all methods, as in settings.toml
  [methods.default]
  [methods.hrank]            # what this method sets
  method = "criterion"
  criterion = "hrank"
  [methods."dense, as long"]
  control = "dense"
"""
EXAMPLES = """\
  amsc bench recipe.toml --out benches/first
  amsc bench recipe.toml --out benches/first --retry
"""
PAGE, TABLE = "bench.html", "table.md"


def add_parser(commands: Any) -> None:
    """Add `bench` to the commands."""
    parser = add_command(
        commands,
        "bench",
        run,
        summary="compare methods by one recipe",
        description=DESCRIPTION,
        examples=EXAMPLES,
    )
    parser.add_argument("recipe", metavar="FILE", type=Path, help="the recipe")
    parser.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="where the cells are, or will be")
    parser.add_argument("--retry", action="store_true", help="try those cells again that have failed")
    parser.add_argument(
        "--mix", action="store_true", help="go on beside cells of other versions and machines, told apart"
    )
    parser.add_argument(
        "--allow-functions", action="store_true", help="call the functions, package.module:function, that it names"
    )
    add_output_flags(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Make what is missing, show the table, write it and the page, and return 0."""
    recipe: Recipe = read_recipe(args.recipe)
    if not args.allow_functions:
        _refuse_functions(args.recipe, recipe)
    with torch_as_set(recipe.settings):
        networks, data, task = _opened(recipe)
        score = task.name if task is not None else "accuracy"
        try:
            store = bench(
                recipe, networks, data, task, args.out, retry=args.retry, mixed=args.mix, hears=_Noting(score, console)
            )
        except KeyboardInterrupt as stop:
            raise type(stop)(f"stopped; the same command goes on: amsc bench {args.recipe} --out {args.out}") from stop
    found = entries(store, recipe)
    text = table_text(found, recipe, is_share=score in SHARES)
    write_atomically(args.out / TABLE, text.encode())
    write_atomically(args.out / PAGE, render_bench(found, recipe, score=score).encode())
    console.show(text)
    console.show(f"table: {args.out / TABLE}, page: {args.out / PAGE}")
    console.json({"out": str(args.out), "entries": [dataclasses.asdict(entry) for entry in found]})
    return 0


def _refuse_functions(file: Path, recipe: Recipe) -> None:
    """Raises UsageError where the recipe names functions: a file does not say which code is run."""
    runs = (RunSettings(network.model, data=recipe.data, task=recipe.task) for network in recipe.networks.values())
    named = sorted({name for run in runs for name in functions_in(run).values()})
    if named:
        raise UsageError(f"{file} names functions of Python: {', '.join(named)}; if you know them: --allow-functions")


def _opened(recipe: Recipe) -> tuple[dict[str, nn.Module], Data, Task | None]:
    """The networks and the data that a recipe names."""
    opened = {}
    for name, network in recipe.networks.items():
        wanted = RunSettings(network.model, network.weights, recipe.data, task=recipe.task, settings=recipe.settings)
        opened[name], data, _ = open_both(wanted)
    return opened, data, task_of(RunSettings(task=recipe.task))


class _Noting:
    """Says of each cell what became of it."""

    def __init__(self, score: str, console: Console) -> None:
        self._written, self._console = score_format(score), console
        self._place = ""

    def begin(self, cell: Cell, number: int, count: int) -> None:
        """Remember which it is."""
        self._place = f"{number}/{count}"

    def end(self, outcome: Outcome) -> None:
        """Say it."""
        if outcome.failed:
            self._console.warning(f"{self._place} {outcome.cell.name}: failed: {outcome.failed}")
            return
        score = "-" if outcome.score is None else self._written(outcome.score)
        self._console.note(f"{self._place} {outcome.cell.name}: {score} at {outcome.macs_share or 0.0:.1%} of the MACs")
