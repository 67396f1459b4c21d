"""The results as Markdown tables and a plot of accuracy against multiply-adds: FOLDER/table.md and FOLDER/accuracy.svg.

python -m benchmarks.gpu.table FOLDER    # with results.json in it; the plot needs matplotlib
"""

import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.cells import SHARES, WAYS
from benchmarks.gpu.store import StoreError, read_results

__all__ = ["main", "tables"]

Rows = Sequence[Mapping[str, Any]]


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1:
        print("say which folder has the results: python -m benchmarks.gpu.table FOLDER", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    try:
        found = read_results(folder)
    except StoreError as error:
        print(error, file=sys.stderr)
        return 2
    text = tables(found)
    (folder / "table.md").write_text(text)
    print(text)
    try:
        from benchmarks.gpu.plot import draw
    except ImportError:
        print("no plot: pip install matplotlib", file=sys.stderr)
        return 0
    draw(cells_of(found["results"]), folder / "accuracy.svg", found["setup"]["data"])
    return 0


def tables(found: Mapping[str, Any]) -> str:
    """All tables, after what they were measured on."""
    results = found["results"]
    cards = dict.fromkeys(f"{call.get('gpu', call['cpu'])}, torch {call['torch']}" for call in found["calls"])
    setup = found["setup"]
    parts = [f"{setup['data']}: {setup['train']} training and {setup['test']} test images. {'; '.join(cards)}."]
    parts += [_tests(results), _speeds(results), _overheads(results), _latencies(results)]
    cells = cells_of(results)
    parts += [_cells(network, cells) for network in dict.fromkeys(cell["network"] for cell in cells)]
    parts.append(_failures(results))
    return "\n\n".join(part for part in parts if part) + "\n"


def cells_of(results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The trained networks, each with its `change` against the dense one that it was made of."""
    cells = [dict(one) for one in results.values() if "accuracy" in one]
    dense = {(one["network"], one["epochs"], one["batch"]): one["accuracy"] for one in cells if one["way"] == "dense"}
    for cell in cells:
        cell["change"] = cell["accuracy"] - dense[cell["network"], cell["epochs"], cell["batch"]]
    return cells


def mean_and_spread(values: Sequence[float], form: str = ".2f") -> str:
    """Mean, deviation and number of values."""
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{form}}{spread} ({len(values)})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; nothing without rows."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *lines]) if lines else ""


def titled(title: str, text: str) -> str:
    """The text under a line of its own; nothing if it is empty."""
    return f"{title}\n\n{text}" if text else ""


def _tests(results: Mapping[str, Any]) -> str:
    tests = results.get("tests")
    if tests is None or "counts" not in tests:
        return ""
    counts = ", ".join(f"{number} {kind}" for kind, number in tests["counts"].items()) or "no outcome"
    return f"Tests on the GPU: {counts}{', cut off' if tests['is_cut_off'] else ''}, {tests['seconds']:.0f} s."


def _speeds(results: Mapping[str, Any]) -> str:
    limits = [one for one in results.values() if "macs_per_second" in one and "size" in one]
    words = [f"{one['card']} reaches {one['macs_per_second'] / 1e12:.3g} T multiply-adds per second" for one in limits]
    title = "; ".join(["Training, bfloat16", *words])
    rows = [_speed(one) for one in results.values() if "seconds_per_epoch" in one]
    return titled(title, table(("network", "batch", "steps", "s per epoch", "images per s", "of that", "on"), rows))


def _speed(one: Mapping[str, Any]) -> Sequence[str]:
    is_plain = one["how"].startswith("captured") and not one["is_captured"]
    return (
        one["network"],
        str(one["batch"]),
        f"{one['how']} (failed: plain)" if is_plain else one["how"],
        f"{one['seconds_per_epoch']:.2f}",
        f"{one['examples_per_second']:,.0f}",
        f"{one['share_of_limit']:.1%}" if one["share_of_limit"] else "-",
        one["card"],
    )


def _overheads(results: Mapping[str, Any]) -> str:
    return "\n".join(
        f"A step with the proximal map takes {one['ratio']:.3f} of one without ({one['ratio_quartiles'][0]:.3f} to "
        f"{one['ratio_quartiles'][1]:.3f}), the map alone {1e3 * one['map_seconds']:.2f} ms: {one['network']}, batch "
        f"{one['batch']}."
        for one in results.values()
        if "map_seconds" in one
    )


def _latencies(results: Mapping[str, Any]) -> str:
    rows = []
    for one in results.values():
        if "dimensions" not in one:
            continue
        shares = zip(*one["seconds"].values(), strict=True)
        for number, (macs, times) in enumerate(zip(one["macs_share"], shares, strict=True)):
            dense = [seconds[0] for seconds in one["seconds"].values()]
            cells = [f"{1e3 * a:.2f} ms" if number == 0 else f"{a / b:.2f}" for a, b in zip(times, dense, strict=True)]
            rows.append((one["network"], one["dimensions"], f"{macs:.1%}", *cells))
    names = next((list(one["seconds"]) for one in results.values() if "dimensions" in one), [])
    return titled(
        "A forward pass, eager; shares of the dense network's time", table(("network", "cut", "MACs", *names), rows)
    )


def _cells(network: str, cells: Rows) -> str:
    """Accuracies of a network, and times."""
    mine = [cell for cell in cells if cell["network"] == network]
    words = "test accuracy, %, and change against the dense network: mean, deviation, seeds; blocks gone"
    accuracies = titled(f"{network}: {words}", _by_way(mine, _accuracy))
    cut = [cell for cell in mine if cell["share"] < 1]
    batches = " / ".join(cut[0]["time_share"]) if cut else ""
    times = titled(f"{network}: share of the dense network's time, {batches}", _by_way(cut, _times))
    return "\n\n".join(part for part in (accuracies, times) if part)


def _by_way(cells: Rows, words: Callable[[Rows], str]) -> str:
    """A row for each way, and a column for each share."""
    rows = []
    for epochs, batch in dict.fromkeys((cell["epochs"], cell["batch"]) for cell in cells):
        for way in WAYS:
            here = [one for one in cells if (one["way"], one["epochs"], one["batch"]) == (way, epochs, batch)]
            columns = [[one for one in here if one["share"] in (share, 1.0)] for share in SHARES]
            if here:
                rows.append((way, f"{epochs:g} x {batch}", *(words(column) if column else "-" for column in columns)))
    return table(("way", "epochs x batch", *(f"{share:.0%} of the MACs" for share in SHARES)), rows)


def _accuracy(cells: Rows) -> str:
    accuracy = statistics.mean(one["accuracy"] for one in cells)
    gone = sorted({len(one["removed_blocks"]) for one in cells})
    blocks = f"; {' or '.join(map(str, gone))} gone" if any(gone) else ""
    return f"{accuracy:.2f}, {mean_and_spread([one['change'] for one in cells], '+.2f')}{blocks}"


def _times(cells: Rows) -> str:
    return " / ".join(
        f"{statistics.mean(one['time_share'][name] for one in cells):.2f}" for name in cells[0]["time_share"]
    )


def _failures(results: Mapping[str, Any]) -> str:
    rows = [f"- {name}: {one.get('failure') or one['unreachable']}" for name, one in results.items() if _failed(one)]
    return titled("Without an outcome", "\n".join(rows))


def _failed(result: Mapping[str, Any]) -> bool:
    return "failure" in result or "unreachable" in result


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
