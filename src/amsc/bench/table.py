"""What a bench found: for each network and number of epochs a row for every method and a column for every budget."""

import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from amsc.bench.recipe import Cell, Recipe
from amsc.bench.store import Outcome, Store

Key: TypeAlias = tuple[str, float, str, str, str]
"""Network, epochs, budget, method, and what differs in the stamp."""

__all__ = ["Entry", "entries", "rows_of", "table_text"]


@dataclass(frozen=True)
class Entry:
    """A method at a budget after so many epochs, over its seeds.

    Attributes:
        stamp: what differs between this and other cells of the bench in versions and machine, "" if nothing does.
        score, spread: mean of the seeds' mean test scores, and their standard deviation (None of a single seed).
        behind, error: how far the score of each test example, averaged over the seeds that both have, lies below that
            of the recipe's first method, in the mean, and the standard error of that mean over the examples. None for
            the first method itself, and where it was not made.
        change: the mean difference to the dense network's score.
        macs_share, parameters_share, time_shares: means, of the dense network's.
        failed: reasons why seeds are missing.
    """

    network: str
    method: str
    budget: str
    epochs: float
    stamp: str
    seeds: int
    score: float | None
    spread: float | None
    change: float | None
    behind: float | None
    error: float | None
    macs_share: float | None
    parameters_share: float | None
    time_shares: Mapping[str, float]
    failed: tuple[str, ...]

    @property
    def name(self) -> str:
        """The method, and what made it where that is not the same everywhere."""
        return f"{self.method} ({self.stamp})" if self.stamp else self.method


def entries(store: Store, recipe: Recipe) -> tuple[Entry, ...]:
    """All that is there, in the recipe's order. Cells that something else made are entries of their own."""
    stamps = _labels(store.outcomes)
    groups: dict[Key, list[Outcome]] = {}
    for one in store.outcomes:
        cell = one.cell
        key = (cell.network, cell.epochs, cell.budget, cell.method, stamps[_stamp(one)])
        groups.setdefault(key, []).append(one)
    first = next(iter(recipe.methods))
    return tuple(
        _entry(store, key, groups[key], groups, first) for key in sorted(groups, key=lambda key: _place(recipe, key))
    )


def _place(recipe: Recipe, key: Key) -> tuple[Any, ...]:
    """Where a key stands in the recipe."""
    network, epochs, budget, method, stamp = key
    budgets = ("", *recipe.budgets)
    return (
        list(recipe.networks).index(network),
        epochs,
        list(recipe.methods).index(method),
        budgets.index(budget),
        stamp,
    )


def _entry(
    store: Store,
    key: Key,
    group: Sequence[Outcome],
    groups: Mapping[Key, Sequence[Outcome]],
    first: str,
) -> Entry:
    network, epochs, budget, method, stamp = key
    made = [one for one in group if one.score is not None]
    scores = [float(one.score or 0.0) for one in made]
    rivals = groups.get((network, epochs, budget, first, stamp), ()) if method != first else ()
    behind, error = _behind(store, made, [one for one in rivals if one.score is not None])
    times = [one.time_shares for one in made]
    return Entry(
        network,
        method,
        budget,
        epochs,
        stamp,
        len(made),
        statistics.mean(scores) if scores else None,
        statistics.stdev(scores) if len(scores) > 1 else None,
        _mean([score - (one.dense_score or 0.0) for score, one in zip(scores, made, strict=True)]),
        behind,
        error,
        _mean([one.macs_share or 0.0 for one in made]),
        _mean([one.parameters_share or 0.0 for one in made]),
        {batch: statistics.mean(one[batch] for one in times) for batch in (times[0] if times else {})},
        tuple(f"seed {one.cell.seed}: {one.failed}" for one in group if one.failed),
    )


def _mean(values: Sequence[float]) -> float | None:
    return statistics.mean(values) if values else None


def _behind(store: Store, ours: Sequence[Outcome], firsts: Sequence[Outcome]) -> tuple[float | None, float | None]:
    """How far ours lie below the first method's on the same examples, by the seeds that both have."""
    theirs = {one.cell.seed: one.cell for one in firsts}
    pairs = [(one.cell, theirs[one.cell.seed]) for one in ours if one.cell.seed in theirs]
    if not pairs:
        return None, None
    gaps: Tensor = torch.stack([store.scores(other) - store.scores(own) for own, other in pairs]).mean(0)
    return float(gaps.mean()), float(gaps.std() / len(gaps) ** 0.5) if len(gaps) > 1 else None


def _stamp(one: Outcome) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(one.stamp.items()))


def _labels(outcomes: Sequence[Outcome]) -> dict[tuple[tuple[str, str], ...], str]:
    """By the stamps that there are: in what each differs from the others."""
    stamps = list(dict.fromkeys(_stamp(one) for one in outcomes))
    keys = dict.fromkeys(key for stamp in stamps for key, _ in stamp)
    differing = [key for key in keys if len({dict(stamp).get(key) for stamp in stamps}) > 1]
    return {stamp: ", ".join(f"{key} {dict(stamp).get(key)}" for key in differing) for stamp in stamps}


def table_text(found: Sequence[Entry], recipe: Recipe, *, is_share: bool) -> str:
    """Tables in Markdown, one for each network and number of epochs. Scores that are shares are shown in percent."""
    lines: list[str] = []
    for (network, epochs), group in itertools.groupby(found, key=lambda entry: (entry.network, entry.epochs)):
        lines += ["", f"{network}, {epochs:g} epochs", ""]
        lines += _table(list(group), recipe, is_share=is_share)
    return "\n".join([*lines, *_failures(found)]).strip() + "\n"


def _table(group: Sequence[Entry], recipe: Recipe, *, is_share: bool) -> Iterator[str]:
    yield "| method | " + " | ".join(recipe.budgets) + " |"
    yield "|---" * (1 + len(recipe.budgets)) + "|"
    yield from (f"| {' | '.join(row)} |" for row in rows_of(group, recipe, is_share=is_share))


def rows_of(group: Sequence[Entry], recipe: Recipe, *, is_share: bool) -> Iterator[tuple[str, ...]]:
    """For each method of a network and a number of epochs its name, and a cell for each budget."""
    for name in dict.fromkeys(entry.name for entry in group):
        mine = {entry.budget: entry for entry in group if entry.name == name}
        cells = (_words(mine.get(budget) or mine.get(""), is_share=is_share) for budget in recipe.budgets)
        yield name, *cells


def _words(entry: Entry | None, *, is_share: bool) -> str:
    """Score ± deviation (seeds); how far behind the first method ± standard error; time of the largest batch."""
    if entry is None:
        return "-"
    if entry.score is None:
        return "failed"
    scale, digits = (100, 1) if is_share else (1, 4)
    spread = "" if entry.spread is None else f" ± {scale * entry.spread:.{digits}f}"
    words = f"{scale * entry.score:.{digits}f}{spread} ({entry.seeds})"
    if entry.behind is not None:
        error = "" if entry.error is None else f" ± {scale * entry.error:.{digits}f}"
        words += f", {-scale * entry.behind:+.{digits}f}{error}"
    batch = next(reversed(list(entry.time_shares)), None)
    return words if batch is None or not entry.budget else f"{words}, time {entry.time_shares[batch]:.2f}"


def _failures(found: Sequence[Entry]) -> Iterator[str]:
    failed = [(entry, reason) for entry in found for reason in entry.failed]
    if failed:
        yield from ("", "What failed:", "")
    for entry, reason in failed:
        where = Cell(entry.network, entry.method, entry.budget, 0, entry.epochs)
        yield f"- {where.network}, {where.method}, {where.budget or 'no budget'}, {where.epochs:g} epochs, {reason}"
