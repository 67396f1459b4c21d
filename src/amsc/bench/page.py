"""What a bench found as one self-contained page: a frontier and a table for each network and number of epochs."""

import itertools
from collections.abc import Sequence
from typing import Any

from amsc.bench.recipe import Recipe
from amsc.bench.table import Entry, rows_of
from amsc.report.html import page
from amsc.words.amounts import SHARES

__all__ = ["render_bench"]

SCRIPTS = ("base.js", "controls.js", "bench.js")


def render_bench(found: Sequence[Entry], recipe: Recipe, *, score: str) -> str:
    """The page; the same entries give the same. Everything is escaped."""
    is_share = score in SHARES
    groups = [list(group) for _, group in itertools.groupby(found, key=lambda entry: (entry.network, entry.epochs))]
    names = list(dict.fromkeys(entry.name for entry in found))
    return page(
        "bench.html.j2",
        f"amsc bench: {', '.join(recipe.networks)} on {recipe.data}",
        {
            "score": {"name": score, "isShare": is_share},
            "methods": names,
            "groups": [[_point(entry) for entry in group if entry.score is not None] for group in groups],
        },
        SCRIPTS,
        recipe=recipe,
        score=score,
        first=next(iter(recipe.methods)),
        names=names,
        groups=[_section(group, recipe, is_share=is_share) for group in groups],
        failed=[(entry.name, entry, reason) for entry in found for reason in entry.failed],
    )


def _point(entry: Entry) -> dict[str, Any]:
    spread = entry.spread or 0.0
    return {
        "method": entry.name,
        "share": entry.macs_share,
        "score": entry.score,
        "low": (entry.score or 0.0) - spread,
        "high": (entry.score or 0.0) + spread,
        "budget": entry.budget,
        "seeds": entry.seeds,
    }


def _section(group: Sequence[Entry], recipe: Recipe, *, is_share: bool) -> dict[str, Any]:
    """A table: its title, its columns, its rows."""
    return {
        "title": f"{group[0].network}, {group[0].epochs:g} epochs",
        "columns": ("method", *(f">{budget}" for budget in recipe.budgets)),
        "rows": list(rows_of(group, recipe, is_share=is_share)),
    }
