"""The tables of docs/theory.md and its picture, from the results: python -m benchmarks.theory.page

pip install matplotlib
"""

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from benchmarks.theory.rules import has_depth, has_width, wilson
from benchmarks.theory.teachers import TEACHER

__all__ = ["assumption_table", "draw", "shares", "table", "written"]

ROOT = Path(__file__).parents[2]
STYLES: dict[str, dict[str, Any]] = {
    "amsc": {"color": "#b02a30", "linewidth": 2.2, "label": "amsc, its rule"},
    "amsc, BIC": {"color": "#e07b39", "label": "amsc, BIC"},
    "theorem": {"color": "#003f5c", "linewidth": 2.2, "label": "the theorem's rates"},
    "theorem, from the teacher": {"color": "#003f5c", "linestyle": "--", "label": "the same, started at the teacher"},
    "amsc, minimum, shrunk": {"color": "#7a5195", "linestyle": "-.", "label": "amsc, the paper's rule"},
    "ssl": {"color": "#2a7f62", "linestyle": "--", "label": "ssl"},
    "rw": {"color": "#888888", "linestyle": ":", "label": "rw"},
}
Share = tuple[int, int]


def shares(found: dict[str, Any]) -> dict[str, dict[int, tuple[Share, ...]]]:
    """By arm and n: how many of how many have the depth; the width, of those that have the depth; both; and the depth
    with as many units in all as the teacher has, however they are spread."""
    result: dict[str, dict[int, tuple[Share, ...]]] = {}
    cells = list(found["cells"].values())
    for arm in cells[0]["arms"]:
        for n in sorted({cell["n"] for cell in cells}):
            units = torch.tensor([row for cell in cells if cell["n"] == n for row in cell["arms"][arm]])
            depth, both = has_depth(units), has_width(units)
            is_small = depth & (units.sum(1) == sum(TEACHER.units))
            deep, right, small = (int(each.sum()) for each in (depth, both, is_small))
            result.setdefault(arm, {})[n] = (
                (deep, len(units)),
                (right, deep),
                (right, len(units)),
                (small, len(units)),
            )
    return result


def table(found: dict[str, Any]) -> str:
    """Markdown: a table for each probability, with Wilson intervals; replicates in brackets above."""
    titles = ("P(depth)", "P(width given depth)", "P(both)", "P(depth, and four units in all, however spread)")
    return "\n\n".join(f"{title}\n\n" + "\n".join(_rows(found, i)) for i, title in enumerate(titles))


def _rows(found: dict[str, Any], kind: int) -> Iterable[str]:
    by_arm = shares(found)
    sizes = {n: values[0][1] for n, values in next(iter(by_arm.values())).items()}
    yield "| arm | " + " | ".join(f"n = {n} ({count})" for n, count in sizes.items()) + " |"
    yield "|---" * (len(sizes) + 1) + "|"
    for arm, by_size in by_arm.items():
        yield f"| {arm} | " + " | ".join(_cell(*by_size[n][kind]) for n in sizes) + " |"


def _cell(hits: int, count: int) -> str:
    if not count:
        return "-"
    low, high = wilson(hits, count)
    return f"{hits / count:.2f} ({low:.2f}-{high:.2f})"


def assumption_table(found: dict[str, Any], good: float = 0.25) -> str:
    """Markdown: means of Q_d and Q_w over the networks whose error is below `good` variances of the noise."""
    lines = ["| width | depth | networks | Q_d, trained | Q_d, least | Q_w, trained | Q_w, least |", "|---" * 7 + "|"]
    by_place = {(row["width"], row["depth"], row["kind"]): row for row in found["rows"]}
    for width, depth in dict.fromkeys(place[:2] for place in by_place):
        rows = [by_place[width, depth, kind] for kind in ("trained", "least Q_d", "least Q_w")]
        kept = [i for i in range(len(found["seeds"])) if all(row["error"][i] < good for row in rows)]
        names = ((0, "q_d"), (1, "q_d"), (0, "q_w"), (2, "q_w"))
        values = [f"{statistics.mean(rows[i][q][k] for k in kept):.1f}" if kept else "-" for i, q in names]
        lines.append(f"| {width} | {depth} | {len(kept)} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def written(page: str, name: str, text: str) -> str:
    """The page with `text` between its marks for `name`."""
    before, mark, rest = page.partition(f"<!-- {name} -->\n")
    assert mark, f"the page has no mark for {name}"
    return f"{before}{mark}{text}\n<!-- end -->{rest.partition('<!-- end -->')[2]}"


def draw(found: dict[str, Any], out: Path) -> None:
    """Three panels against n."""
    import matplotlib
    import matplotlib.pyplot as plt

    matplotlib.rcParams["svg.hashsalt"] = "amsc"  # the same file for the same results
    figure, panels = plt.subplots(1, 3, figsize=(10.5, 3.8), sharey=True)
    by_arm = shares(found)
    for kind, (axes, title) in enumerate(zip(panels, ("depth", "width, given depth", "both"), strict=True)):
        for place, (arm, style) in enumerate(STYLES.items()):
            known = {n: values[kind] for n, values in by_arm[arm].items() if values[kind][1]}
            middle = [hits / count for hits, count in known.values()]
            ends = [wilson(*share) for share in known.values()]
            low = [max(0.0, m - end[0]) for m, end in zip(middle, ends, strict=True)]  # of none and all: rounding
            high = [max(0.0, end[1] - m) for m, end in zip(middle, ends, strict=True)]
            at = [n * 1.03 ** (place - len(STYLES) / 2) for n in known]
            axes.errorbar(
                at, middle, yerr=[low, high], marker="o", markersize=3, capsize=2, **{"linewidth": 1.2} | style
            )
        axes.set_xscale("log", base=2)
        axes.set_xticks(list(next(iter(by_arm.values()))), [str(n) for n in next(iter(by_arm.values()))], fontsize=7)
        axes.set(title=f"P({title})", xlabel="examples, n", ylim=(-0.03, 1.03))
        axes.grid(alpha=0.25)
    figure.legend(*panels[0].get_legend_handles_labels(), fontsize=8, frameon=False, loc="lower center", ncols=4)
    figure.tight_layout(rect=(0, 0.13, 1, 1))
    figure.savefig(out, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    results = ROOT / "benchmarks" / "results"
    found, assumption = (json.loads((results / f"{name}.json").read_text()) for name in ("theory", "theory_assumption"))
    path = ROOT / "docs" / "theory.md"
    page = written(path.read_text(), "shares", table(found))
    path.write_text(written(page, "assumption", assumption_table(assumption)))
    draw(found, ROOT / "docs" / "pictures" / "theory.svg")


if __name__ == "__main__":
    main()
