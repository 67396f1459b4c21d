"""Accuracy against the share of MACs for the ways in a results file of frontier.py, as an SVG in docs/pictures.

pip install matplotlib
python benchmarks/evidence/plot_frontier.py benchmarks/results/frontier.json [more files]
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
# Ways of amsc stand out; what is left out of the picture is in the table.
STYLES: dict[str, dict[str, Any]] = {
    "proximal": {"color": "#b02a30", "linewidth": 2.2, "label": "amsc, the default"},
    "gates at once": {"color": "#e07b39", "label": "amsc, gates"},
    "scan, width only": {"color": "#d9a441", "label": "amsc, scan"},
    "plain, one-standard-error rule": {"color": "#e07b39", "label": "plain, one-standard-error rule"},
    "plain, half of the saving": {"color": "#7a5195", "label": "plain, half of the saving from depth"},
    "plain, as far as it goes": {"color": "#003f5c", "label": "plain, depth as far as it goes"},
    "proximal, blocks as far as they go": {"color": "#003f5c", "label": "amsc, depth as far as it goes"},
    "L1, uniform": {"color": "#2a7f62", "linestyle": "--", "label": "L1"},
    "Taylor": {"color": "#4a8fb8", "linestyle": "--", "label": "Taylor"},
    "random, uniform": {"color": "#888888", "linestyle": ":", "label": "random"},
    "amsc weights": {"color": "#7a5195", "linestyle": "-.", "label": "the paper's weights"},
}


def draw(path: Path) -> Path:
    found = json.loads(path.read_text())
    shares = sorted({run["share"] for run in found["runs"]}, reverse=True)
    figure, axes = plt.subplots(figsize=(7.5, 4.6))
    for place, (arm, style) in enumerate(STYLES.items()):
        runs = {s: [r["accuracy"] for r in found["runs"] if (r["arm"], r["share"]) == (arm, s)] for s in shares}
        kept = [share for share in shares if runs[share]]
        if not kept:
            continue
        means = [statistics.mean(runs[share]) for share in kept]
        spreads = [statistics.stdev(runs[share]) if len(runs[share]) > 1 else 0.0 for share in kept]
        at = [100 * share + 0.25 * (place - len(STYLES) / 2) for share in kept]  # beside each other, not on one another
        axes.errorbar(at, means, yerr=spreads, marker="o", markersize=4, capsize=2, **{"linewidth": 1.3} | style)
    dense = list(found["dense_accuracy"].values())
    axes.axhline(statistics.mean(dense), color="black", linewidth=0.7, linestyle=":")
    axes.text(100 * min(shares) - 1, statistics.mean(dense), " dense", va="bottom", fontsize=8)
    axes.set_xlabel("multiply-adds left, %")
    axes.set_ylabel(f"test accuracy, % ({found['data']}, {found['model'].rpartition(':')[2]})")
    axes.invert_xaxis()
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False, loc="lower left")
    axes.set_title(f"{found['epochs']:g} epochs in all for every way; mean and deviation over seeds", fontsize=9)
    figure.tight_layout()
    out = PICTURES / f"{path.stem}.svg"
    figure.savefig(out, metadata={"Date": None})
    plt.close(figure)
    return out


if __name__ == "__main__":
    matplotlib.rcParams["svg.hashsalt"] = "amsc"  # the same file for the same results
    for name in sys.argv[1:]:
        print(draw(Path(name)))
