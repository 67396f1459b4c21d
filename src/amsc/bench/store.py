"""A bench on the disk: a file for each cell, which is made once, and the machine and versions that made it."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor

from amsc.bench.recipe import Cell, Recipe
from amsc.errors import RunFolderError
from amsc.settings import Settings, plain_settings
from amsc.storage import read_text, write_atomically
from amsc.words.json_text import plain_json

__all__ = ["Outcome", "Store", "digest", "plain_name", "said_settings", "slug"]


@dataclass(frozen=True)
class Outcome:
    """What became of a cell: its mean score on the test split and the dense network's, what it costs as shares of the
    dense network's, the blocks that are gone, the seconds it took, and what made it. Of one that `failed` there is the
    reason alone.

    `time_shares` are latencies by the number of examples in a call, in turns with the dense network."""

    cell: Cell
    choices: str
    stamp: Mapping[str, str]
    score: float | None = None
    dense_score: float | None = None
    macs_share: float | None = None
    parameters_share: float | None = None
    time_shares: Mapping[str, float] = field(default_factory=dict)
    removed_blocks: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    failed: str = ""


class Store:
    """The cells in a folder. `choices_of` a cell are short texts that differ where its settings, network or data do.

    Args:
        stamp: the versions and the machine that make the cells of this call.
        facts: for each network a text that differs for other weights and other data.
        mixed: keep cells of other versions and machines too, and make none of them again.

    Raises:
        RunFolderError: the folder holds cells that cannot be read, of another recipe, network or data, or, unless
            `mixed`, of other versions or another machine.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        stamp: Mapping[str, str],
        facts: Mapping[str, str],
        *,
        mixed: bool = False,
    ) -> None:
        self.folder, self._recipe, self.stamp, self._facts = folder, recipe, stamp, facts
        self._found = {outcome.cell: outcome for outcome in self._read()}
        for outcome in self._found.values():
            if outcome.stamp != stamp and not mixed:
                raise RunFolderError(f"{folder} holds cells of {_difference(outcome.stamp, stamp)}; {_MIX}")

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """Of the cells of the recipe, in its order, those that are there."""
        return tuple(self._found[cell] for cell in self._recipe.cells() if cell in self._found)

    def has(self, cell: Cell, *, retry: bool) -> bool:
        """Whether a cell is there; one that failed is not where it is to be tried again."""
        found = self._found.get(cell)
        return found is not None and not (retry and found.failed)

    def keep(self, outcome: Outcome, scores: Tensor | None) -> None:
        """Write a cell, and the score of each test example if there is one."""
        name = slug(outcome.cell)
        if scores is not None:
            content = to_safetensors({"scores": scores.float().contiguous()})
            write_atomically(self._cells / f"{name}.safetensors", content, make_folder=True)
        text = json.dumps(asdict(outcome), indent=1) + "\n"
        write_atomically(self._cells / f"{name}.json", text.encode(), make_folder=True)
        self._found[outcome.cell] = outcome

    def scores(self, cell: Cell) -> Tensor:
        """The score of each test example, float64.

        Raises:
            RunFolderError: they are not there.
        """
        file = self._cells / f"{slug(cell)}.safetensors"
        try:
            return from_safetensors(file.read_bytes())["scores"].to(torch.float64)
        except (OSError, SafetensorError, KeyError) as error:
            raise RunFolderError(f"cannot read the scores of {cell.name} in {file}: {error}; make it again") from error

    def choices_of(self, cell: Cell) -> str:
        """A short text that differs where the cell would be made with other settings, network or data."""
        recipe = self._recipe
        method = recipe.methods[cell.method]
        like = said_settings(recipe.settings_of(_as(cell, method.like))) if method.like else {}
        said = [
            *(self._facts[cell.network], recipe.task, recipe.dense_epochs),
            *(method.control, method.walked, said_settings(recipe.settings_of(cell)), like),
            *([method.outsider] if method.outsider else []),
        ]
        return digest(said)

    @property
    def _cells(self) -> Path:
        return self.folder / "cells"

    def _read(self) -> list[Outcome]:
        files = sorted(self._cells.glob("*.json")) if self._cells.is_dir() else []
        wanted, found = set(self._recipe.cells()), []
        for file in files:
            outcome = _outcome(file)
            if outcome.cell in wanted and outcome.choices != self.choices_of(outcome.cell):
                raise RunFolderError(
                    f"{file} was made by another recipe: the settings, network or data of {outcome.cell.name} are not "
                    "what they were; name another --out"
                )
            found.append(outcome)
        return found


_MIX = "name another --out, or, to keep both, apart in the tables, --mix"


def slug(cell: Cell) -> str:
    """The name of a cell's files."""
    words = f"{cell.network}-{cell.method}-{cell.budget}"
    return f"{plain_name(words)}-seed{cell.seed}-epochs{cell.epochs:g}-{digest(asdict(cell))}"


def plain_name(words: str) -> str:
    """Words as a part of a file's name."""
    return re.sub(r"[^\w.=%+-]+", "-", words).strip("-")[:80]


LATER: Mapping[str, Any] = {"regularizer": "", "regularization": "auto"}
"""Settings that are younger than the first cells, by what they were before there was a choice."""


def said_settings(settings: Settings) -> dict[str, Any]:
    """The settings as plain data, without younger ones that are as everything was before, so that older cells hold."""
    plain = plain_settings(settings)
    return {key: value for key, value in plain.items() if key not in LATER or value != LATER[key]}


def digest(said: Any) -> str:
    """A short text that differs for other plain data."""
    return hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=8).hexdigest()


def _as(cell: Cell, method: str) -> Cell:
    return Cell(cell.network, method, cell.budget, cell.seed, cell.epochs)


def _outcome(file: Path) -> Outcome:
    try:
        plain: dict[str, Any] = plain_json(read_text(file))
        cell = Cell(**plain.pop("cell"))
        return Outcome(cell, **{**plain, "removed_blocks": tuple(plain["removed_blocks"])})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunFolderError(f"{file} is no cell of a bench ({error}); remove it, and it is made again") from error


def _difference(theirs: Mapping[str, str], ours: Mapping[str, str]) -> str:
    differing = [key for key in ours if theirs.get(key) != ours[key]]
    return ", ".join(f"{key} {theirs.get(key, 'unknown')} (here: {ours[key]})" for key in differing)
