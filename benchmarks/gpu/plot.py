"""Accuracy against the share of multiply-adds, a panel for each network."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
from benchmarks.gpu.cells import SHARES

__all__ = ["draw"]

MARKS: dict[str, Any] = {"linewidth": 1.3, "marker": "o", "markersize": 4, "capsize": 2}
STYLES: dict[str, dict[str, Any]] = {
    "default": {"color": "#b02a30", "linewidth": 2.2},
    "default, no distillation": {"color": "#b02a30", "linestyle": "--"},
    "width only": {"color": "#e07b39"},
    "depth only": {"color": "#003f5c"},
    "L1, uniform": {"color": "#2a7f62"},
    "L1, uniform, no distillation": {"color": "#2a7f62", "linestyle": "--"},
    "paper": {"color": "#7a5195", "linestyle": "-."},
}


def draw(cells: Sequence[Mapping[str, Any]], path: Path, data: str) -> None:
    """Write the plot; nothing where no network was trained."""
    networks = list(dict.fromkeys(cell["network"] for cell in cells))
    if not networks:
        return
    matplotlib.rcParams["svg.hashsalt"] = "amsc"  # the same file for the same results
    figure, panels = plt.subplots(1, len(networks), figsize=(6.5 * len(networks), 4.6), squeeze=False)
    for panel, network in zip(panels[0], networks, strict=True):
        _panel(panel, [cell for cell in cells if cell["network"] == network])
        panel.set_title(network, fontsize=9)
        panel.set_ylabel(f"test accuracy, % ({data})")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _panel(axes: Any, cells: Sequence[Mapping[str, Any]]) -> None:
    for place, (way, style) in enumerate(STYLES.items()):
        runs = {share: [c["accuracy"] for c in cells if (c["way"], c["share"]) == (way, share)] for share in SHARES}
        kept = [share for share in sorted(SHARES, reverse=True) if runs[share]]
        if not kept:
            continue
        means = [statistics.mean(runs[share]) for share in kept]
        spreads = [statistics.stdev(runs[share]) if len(runs[share]) > 1 else 0.0 for share in kept]
        at = [100 * share + 0.25 * (place - len(STYLES) / 2) for share in kept]  # beside, not on one another
        axes.errorbar(at, means, yerr=spreads, label=way, **MARKS | style)
    for way, line in (("dense", "-"), ("dense, longer", ":")):
        found = [cell["accuracy"] for cell in cells if cell["way"] == way]
        if found:
            axes.axhline(statistics.mean(found), color="black", linewidth=0.7, linestyle=line, label=way)
    axes.set_xlabel("multiply-adds left, %")
    axes.invert_xaxis()
    axes.grid(alpha=0.25)
    axes.legend(fontsize=7, frameon=False, loc="lower left")
