"""The pictures of docs/ideas.md: what depth and width are, and what a reconstruction gives back.

pip install matplotlib
python benchmarks/evidence/plot_documents.py

The first is a drawing. The second shows benchmarks/results/reconstruction_seeds.json.
"""

import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "pictures"
RESULTS = ROOT / "benchmarks" / "results" / "reconstruction_seeds.json"
KEPT, GONE = "#3b6ea5", "#d8d8d8"
WIDTHS = {
    "dense": [8, 8, 8, 8, 8, 8, 8],
    "fewer filters": [8, 3, 4, 5, 3, 4, 6],
    "fewer filters and fewer layers": [8, 5, 0, 6, 0, 5, 7],
}
WAYS = {
    "as cut": ("as cut", "#9a9a9a"),
    "BatchNorm anew": ("BatchNorm estimated anew", "#c98b2b"),
    "all": ("reconstructed", "#3b6ea5"),
}


def main() -> None:
    matplotlib.rcParams.update({"svg.hashsalt": "amsc", "font.family": "sans-serif", "font.size": 10})
    draw_networks()
    draw_reconstruction(json.loads(RESULTS.read_text())["runs"])


def draw_networks() -> None:
    """Three networks: a column for each layer, a box for each filter; grey is gone."""
    figure, axes = plt.subplots(1, 3, figsize=(9.2, 2.6))
    for place, (title, widths) in zip(axes, WIDTHS.items(), strict=True):
        for layer, kept in enumerate(widths):
            for filter_number in range(8):
                colour = KEPT if filter_number < kept else GONE
                place.add_patch(
                    FancyBboxPatch((layer, filter_number), 0.62, 0.62, boxstyle="round,pad=0.04", color=colour, lw=0)
                )
            if not kept:
                place.plot([layer + 0.31] * 2, [-0.3, 7.9], color="#a33c3c", linewidth=1.6)
        place.set(xlim=(-0.4, 7), ylim=(-0.6, 8.2), aspect="equal")
        place.axis("off")
        place.set_title(title, fontsize=11)
    finish(figure, "depth-and-width.svg")


def draw_reconstruction(runs: list[dict[str, Any]]) -> None:
    """Mean accuracy over seeds at each share of the multiply-adds."""
    figure, axes = plt.subplots(figsize=(6.4, 3.4))
    cuts = sorted({run["cut"] for run in runs}, reverse=True)
    for place, (way, (label, colour)) in enumerate(WAYS.items()):
        values = [[run["accuracy"] for run in runs if (run["way"], run["cut"]) == (way, cut)] for cut in cuts]
        at = [number + 0.27 * (place - 1) for number in range(len(cuts))]
        means = [statistics.mean(found) for found in values]
        bars = axes.bar(at, means, 0.25, yerr=[statistics.stdev(found) for found in values], color=colour, label=label)
        axes.bar_label(bars, fmt="%.0f", padding=2, fontsize=8)
    axes.set_xticks(range(len(cuts)), cuts)
    axes.set_xlabel("multiply-adds left")
    axes.set_ylabel("accuracy, %")
    axes.set_ylim(0, 112)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=3, fontsize=9, loc="upper center")
    finish(figure, "reconstruction.svg")


def finish(figure: Any, name: str) -> None:
    """Write it, the same file for the same numbers."""
    figure.tight_layout()
    figure.savefig(PICTURES / name, metadata={"Date": None})
    plt.close(figure)
    print(PICTURES / name)


if __name__ == "__main__":
    main()
