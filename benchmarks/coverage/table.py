"""The rows of the coverage benchmark as a markdown page."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

Row = dict[str, Any]
PROVEN = ("ok", "rounding")


def summary(rows: Sequence[Row]) -> str:
    built = [row for row in rows if row["status"] != "not built"]
    prunable = [row for row in built if row["status"] in PROVEN and row["removed_share"] > 0]
    half = [row for row in prunable if row["removed_share"] >= 0.5]
    kinds = ", ".join(f"{status} {number}" for status, number in Counter(row["status"] for row in rows).most_common())
    wrong = sum(row["status"] == "SILENTLY WRONG" for row in rows)
    alarms = sum(row["status"] == "false alarm" for row in rows)
    caught = sum(row["status"] == "caught" for row in rows)
    return (
        f"{len(rows)} families: {percent(len(prunable), len(built))} prunable with proof,"
        f" {percent(len(half), len(built))} by half or more; {wrong} silently wrong,"
        f" {caught} caught by the verification, {alarms} false alarms. Status: {kinds}."
    )


def percent(part: int, whole: int) -> str:
    return f"{part} ({100 * part / max(whole, 1):.0f} %)"


def markdown(rows: Sequence[Row], stamp: Mapping[str, str]) -> str:
    head = (
        "| family | status | parameters | groups exact / inexact | blocks | pinned | removable | largest error "
        "| trace / trial, s | why |\n|-|-|-:|-:|-:|-:|-:|-:|-:|-|"
    )
    facts = "\n".join(f"- {key}: `{value}`" for key, value in stamp.items())
    return "\n\n".join(
        [
            "# Coverage: what amsc removes from public architectures",
            "Written by `benchmarks/coverage/coverage.py`; do not edit. Tiny random networks (timm: a real small"
            " variant), each with 40 % of the channels of every exact group removed, with random blocks removed, with"
            " both, and with as much as possible.",
            "*pinned*: share of the parameters on no removable axis and in no block. *removable*: share of the"
            " parameters that the largest proven cut takes. *ok*: cut equals masked within 1e-5, also by a comparison"
            " that is not amsc's. *rounding*: above 1e-5 in float32 but not in float64. *refused*: plan or cut raised"
            " an error. *caught*: the verification raised one; *false alarm*: it did, but"
            " the difference is only rounding. *SILENTLY WRONG*: handed out and different.",
            f"**{summary(rows)}**",
            head + "\n" + "\n".join(map(table_line, rows)),
            facts + "\n",
        ]
    )


def table_line(row: Row) -> str:
    error = row.get("max_error")
    cells = [
        row["family"],
        row["status"],
        f"{row['parameters']:,}" if "parameters" in row else "",
        f"{row['exact']} / {row['inexact']}" if "exact" in row else "",
        str(row.get("blocks", "")),
        f"{100 * row['pinned_share']:.0f} %" if "pinned_share" in row else "",
        f"{100 * row.get('removed_share', 0):.0f} %",
        f"{error:.0e}" if error is not None else "",
        f"{row.get('trace_seconds', '')} / {row.get('cuttable_seconds', '')}",
        (row.get("why") or "; ".join(row.get("inexact_why", [])[:1])).replace("|", "\\|")[:140],
    ]
    return f"| {' | '.join(cells)} |"
