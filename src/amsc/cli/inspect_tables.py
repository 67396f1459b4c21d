"""How `amsc inspect` shows a structure: a summary, the tree of modules, and tables that fit on a screen."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.text import Text

from amsc.cli.console import Console
from amsc.cli.outline import Node
from amsc.structure import ChannelGroup, Rounding, Structure
from amsc.structure.costing import channel_macs, predicted_parameters
from amsc.structure.words import (
    BLOCK_COLUMNS,
    PIN_COLUMNS,
    block_rows,
    block_words,
    cost_words,
    could_not_be_cut,
    pin_rows,
    removable_words,
    stuck_lines,
    uncut_lines,
)
from amsc.words.alike import alike, name_together
from amsc.words.amounts import format_count
from amsc.words.reasons import in_words

__all__ = ["View", "show"]

TREE_LINES, TABLE_LINES = 28, 12
"""Of the overview; --tree, --groups, --blocks and --pins show everything."""
GROUPS_IN_A_LINE = 2
LEGEND = """\
group: channels of several layers that go together
stream: those that residual layers add to
fewest: how many of a group stay at the least
exact: without a channel all is as with zeros in its place"""
NARROW, VERY_NARROW = 100, 80
"""Below so many characters the tables have fewer columns, so that no number is cut off."""


@dataclass(frozen=True)
class View:
    """What is shown: the structure of the network `name`.

    `is_tried`: by a trial. Blocks in `kept` stay because the user says so, as does what `rounding` does not let go."""

    name: str
    structure: Structure
    kept: tuple[str, ...] = ()
    is_tried: bool = True
    rounding: Rounding = Rounding()  # noqa: RUF009 - it is frozen


def show(view: View, root: Node, console: Console, *, sections: Sequence[str] = (), depth: int | None = None) -> None:
    """The wanted sections in full, or the beginning of every one."""
    everything, limit = not sections, None if sections else TABLE_LINES
    _show_summary(view, console)
    if everything or "tree" in sections:
        _show_tree(view, root, console, depth or (_fitting_depth(root) if everything else None))
    if everything or "groups" in sections:
        _show_groups(view, console, limit)
    if everything or "blocks" in sections:
        _show_blocks(view, console, limit)
    if everything or "pins" in sections:
        _show_pins(view, console, limit)
    unused = view.structure.unused
    if unused:
        console.show(f"unused by the forward pass: {name_together(unused, most=6)}")


def _show_summary(view: View, console: Console) -> None:
    structure = view.structure
    console.show(f"{view.name}: {cost_words(structure)}")
    words = removable_words(structure, view.rounding.fewest)
    console.show(f"can go ({'tried' if view.is_tried else 'not tried'}): {words}")


# -- the tree ----------------------------------------------------------------------------------------------------------


def _fitting_depth(root: Node) -> int:
    """The deepest tree of at most `TREE_LINES` lines, but two levels in any case."""
    depth = 2
    while _lines(root, depth + 1) <= TREE_LINES and _lines(root, depth + 1) > _lines(root, depth):
        depth += 1
    return depth


def _lines(node: Node, depth: int) -> int:
    return sum(1 + (_lines(child, depth - 1) if depth > 1 else 0) for child in node.children)


def _show_tree(view: View, root: Node, console: Console, depth: int | None) -> None:
    total = root.macs
    width = console.width
    rows = [_tree_row(line, total, width) for line in _walked(_Line(root, "", 1), depth)]
    hidden = _lines(root, 10**6) - len(rows)
    costs = [*([">parameters"] if width >= VERY_NARROW else []), ">MACs", ">share"]
    wide = ["module", ".class", *costs, "channels", "remarks"]
    columns = wide if width >= NARROW else ["module", *costs, "remarks"]
    note = f"{hidden} more lines below: amsc inspect {view.name} --tree" if hidden else ""
    console.table("modules", columns, rows, note=note)


@dataclass(frozen=True)
class _Line:
    """A node of the tree, the branches to draw before it, and how many modules it stands for in all."""

    node: Node
    guide: str
    count: int


def _walked(line: _Line, depth: int | None) -> Iterator[_Line]:
    """All lines below `line`."""
    if depth == 0:
        return
    children = line.node.children
    for child in children:
        is_last = child is children[-1]
        count = line.count * child.alike
        yield _Line(child, line.guide + ("└─ " if is_last else "├─ "), count)
        below = _Line(child, line.guide + ("   " if is_last else "│  "), count)
        yield from _walked(below, None if depth is None else depth - 1)


def _tree_row(line: _Line, total: int, width: int) -> list[str | Text]:
    node = line.node
    times = f"{line.count} x " if line.count > 1 else ""
    name = f"{node.label} ({node.alike} alike)" if node.alike > 1 else node.label
    label = Text(line.guide, style="dim") + Text(name, style="bold" if node.is_block else "")
    label.no_wrap, label.overflow = True, "ellipsis"
    remarks = Text(", ").join(
        [
            *([Text("block", style="green")] if node.is_block else []),
            *([Text(f"stays: {' '.join(node.pinned)}", style="yellow")] if node.pinned else []),
        ]
    )
    costs = [
        *([f"{times}{format_count(node.parameters)}"] if width >= VERY_NARROW else []),
        f"{times}{format_count(node.macs)}",
        f"{line.count * node.macs / total:.1%}" if total else "-",
    ]
    if width >= NARROW:
        return [label, Text(node.kind, style="dim"), *costs, _groups_text(node), remarks]
    remarks = Text(", ").join(text for text in (remarks, _groups_text(node)) if text)
    remarks.no_wrap, remarks.overflow = True, "ellipsis"
    return [label, *costs, remarks]


def _groups_text(node: Node) -> Text:
    """The groups of a module; where many meet, as at the end of a dense block, the first and how many more."""
    most = GROUPS_IN_A_LINE
    texts = [_group_text(group, node) for group in node.groups[:most]]
    more = [Text(f"{len(node.groups) - most} more groups", style="dim")] if len(node.groups) > most else []
    return Text("; ").join([*texts, *more])


def _group_text(group: ChannelGroup, node: Node) -> Text:
    where = "" if group.name.partition("#")[0] == node.name else f" of {group.name}"
    exact = "" if group.exact else ", stays" if not group.removable and group.kind != "stream" else ", not exact"
    style = "green" if group.removable and not where else "dim"
    return Text(f"{group.size} {group.kind}{where}{exact}", style=style)


# -- the tables --------------------------------------------------------------------------------------------------------


def _show_groups(view: View, console: Console, limit: int | None) -> None:
    structure, groups = view.structure, view.structure.channels
    columns = ["name", ".kind", ">channels", ">fewest", ">MACs per channel", ">parameters", "exact"]
    shown = range(7) if console.width >= NARROW else (0, 1, 2, 4, 6) if console.width >= VERY_NARROW else (0, 2, 6)
    cells = [_group_cells(view, group, predicted_parameters(structure)) for group in groups]
    rows = [(found.label, *cells[found.indices[0]]) for found in alike([group.name for group in groups], cells)]
    columns, rows = [columns[i] for i in shown], [tuple(row[i] for i in shown) for row in rows]
    _limited(f"{len(groups)} channel groups", columns, rows, limit, f"amsc inspect {view.name} --groups", console)
    if groups:
        console.show(LEGEND)


def _group_cells(view: View, group: ChannelGroup, parameters: int) -> tuple[str, ...]:
    return (
        group.kind,
        str(group.size),
        str(view.rounding.fewest(group)),
        format_count(channel_macs(view.structure, group.name)),
        format_count(parameters - predicted_parameters(view.structure, {group.name: [0]})),
        _exactness(group),
    )


def _exactness(group: ChannelGroup) -> str:
    if group.exact:
        return "yes"
    if could_not_be_cut(group):
        return "no: the trial failed, see below"
    return f"no: {in_words(group.reason or group.unproven).text}"


def _show_blocks(view: View, console: Console, limit: int | None) -> None:
    structure = view.structure
    columns = ["name", ".kind", *BLOCK_COLUMNS[2:]]
    title = block_words(structure, "removable block")
    _limited(title, columns, block_rows(structure), limit, f"amsc inspect {view.name} --blocks", console)
    if view.kept:
        console.show(f"kept as you say: {name_together(view.kept, most=6)}")
    for line in stuck_lines(view.structure):
        console.show(line)


def _show_pins(view: View, console: Console, limit: int | None) -> None:
    """One row per reason and line of the user's code; `--explain` and the JSON name every axis."""
    title = f"{len(view.structure.pins)} pinned axes (axes of parameters that keep their length)"
    _limited(title, PIN_COLUMNS, pin_rows(view.structure), limit, f"amsc inspect {view.name} --pins", console)
    for line in uncut_lines(view.structure):
        console.show(line)


def _limited(
    title: str,
    columns: Sequence[str],
    rows: Sequence[tuple[str, ...]],
    limit: int | None,
    all_of_it: str,
    console: Console,
) -> None:
    """The first rows; where some are left out, how to see them."""
    hidden = len(rows) - limit if limit is not None else 0
    note = f"{hidden} more rows: {all_of_it}" if hidden > 0 else ""
    console.table(title, columns, rows if hidden <= 0 else rows[:limit], note=note)
