"""A structure in words, for `print`, notebooks and `amsc inspect`: what can go, what it costs, what stays and why."""

import re
from collections.abc import Callable, Iterable
from math import prod

from amsc.structure.costing import predicted_macs, predicted_parameters
from amsc.structure.cutting import after_removal
from amsc.structure.lone_layers import lone_layers, lone_words
from amsc.structure.parts import Block, ChannelGroup
from amsc.structure.structure import Structure
from amsc.words.alike import alike, name_together
from amsc.words.amounts import format_count
from amsc.words.page import Page, Section, first_rows
from amsc.words.reasons import in_words

__all__ = [
    "block_page",
    "block_parameters",
    "block_rows",
    "block_words",
    "cost_words",
    "could_not_be_cut",
    "exactness",
    "going_words",
    "group_page",
    "pin_rows",
    "reasons_to_stay",
    "removable_words",
    "structure_line",
    "structure_page",
    "stuck_lines",
    "uncut_lines",
]

Fewest = Callable[[ChannelGroup], int]
"""How few channels of a group can be left."""
Row = tuple[str, ...]
BLOCK_COLUMNS = ("removable blocks", "kind", ">MACs", ">share", ">parameters", ">share")
PIN_COLUMNS = ("why they stay", ">axes", "parameter[axis]")
MOST_ROWS = 6


def structure_line(structure: Structure) -> str:
    """How large it is and how much of it can go, in a line."""
    groups = _groups_inside(structure)
    channels = sum(group.size for group in groups)
    return (
        f"{cost_words(structure)}; {len(groups)} removable groups of {channels} channels,"
        f" {block_words(structure, 'removable block')}"
    )


def _groups_inside(structure: Structure) -> list[ChannelGroup]:
    """The groups whose channels are counted as removable everywhere: all that may lose some but residual streams."""
    return [group for group in structure.channels if group.removable and group.kind != "stream"]


def structure_page(structure: Structure) -> Page:
    """What can go by kind, the blocks, and why the rest stays."""
    blocks = first_rows(BLOCK_COLUMNS, block_rows(structure), MOST_ROWS, "rows: structure.blocks")
    pins = first_rows(PIN_COLUMNS, pin_rows(structure), MOST_ROWS, "reasons: structure.pins")
    unused = structure.unused
    return Page(
        f"Structure: {cost_words(structure)}",
        (
            f"can go: {removable_words(structure)}",
            *([f"not used by the example inputs: {name_together(unused, most=4)}"] if unused else []),
            *stuck_lines(structure),
        ),
        (*_kinds(structure), *blocks, *pins),
        "more: structure.explain(NAME), structure.group(NAME), structure.block(NAME), structure.to_json()",
    )


def _kinds(structure: Structure) -> tuple[Section, ...]:
    """A row for each kind of groups, with what goes if all of them are cut down to one channel each."""
    columns = ("channel groups", ">groups", ">exact", ">channels", ">parameters that can go", ">MACs that can go")
    total = predicted_parameters(structure), predicted_macs(structure)
    rows = []
    for kind in dict.fromkeys(group.kind for group in structure.channels):
        groups = [group for group in structure.channels if group.kind == kind]
        going = {group.name: range(group.size - _one_or_all(group)) for group in groups}
        left = predicted_parameters(structure, going), predicted_macs(structure, going)
        rows.append(
            (
                kind,
                str(len(groups)),
                str(sum(group.exact for group in groups)),
                str(sum(group.size for group in groups)),
                *(_share(before - after, before) for before, after in zip(total, left, strict=True)),
            )
        )
    return first_rows(columns, rows, len(rows), "")


def _one_or_all(group: ChannelGroup) -> int:
    return 1 if group.removable else group.size


def cost_words(structure: Structure) -> str:
    """Its parameters and multiply-adds."""
    parameters, macs = predicted_parameters(structure), predicted_macs(structure)
    return f"{format_count(parameters)} parameters, {format_count(macs)} MACs"


def block_words(structure: Structure, name: str = "block") -> str:
    """How many blocks can go one by one, how many more lie inside them, and how many of all are plain convolutions."""
    plain = {block.name for block in structure.blocks if block.kind.is_dirac}
    outer = len([block for block in structure.outer_blocks if block.name not in plain])
    inner = len(structure.blocks) - len(plain) - outer
    more = f" ({inner} more inside them)" if inner else ""
    convolutions = f", {_counted(len(plain), 'plain convolution')}" if plain else ""
    return f"{_counted(outer, name)}{more}{convolutions}"


def _counted(number: int, name: str) -> str:
    return f"{number} {name}{'s' * (number != 1)}"


def going_words(structure: Structure, fewest: Fewest = _one_or_all, *, streams: bool = True) -> str:
    """How many blocks and channels can go, those of residual streams among them or not."""
    inside, others = _going(structure, fewest)
    total = sum(group.size for group in _groups_inside(structure))
    groups = f"{len(inside)} of {_counted(len(structure.channels), 'group')}"
    channels = f"{sum(inside.values())} of {total} channels in {groups}"
    more = f", {sum(others.values())} of residual streams" if others and streams else ""
    return f"{block_words(structure)}, {channels}{more}"


def _going(structure: Structure, fewest: Fewest) -> tuple[dict[str, int], dict[str, int]]:
    """How many channels of each group can go: of those inside of blocks and layers, and of residual streams."""
    going = {group: group.size - fewest(group) for group in structure.channels if fewest(group) < group.size}
    inside = {group.name: count for group, count in going.items() if group.kind != "stream"}
    return inside, {group.name: count for group, count in going.items() if group.kind == "stream"}


def removable_words(structure: Structure, fewest: Fewest = _one_or_all) -> str:
    """How many blocks and channels can go, and what is left then."""
    inside, _ = _going(structure, fewest)
    left = after_removal(structure, {}, [block.name for block in structure.blocks])
    names = {group.name for group in left.channels}
    lowest = predicted_macs(left, {name: range(count) for name, count in inside.items() if name in names})
    macs = predicted_macs(structure)
    share = f"; without all of that but the streams {lowest / macs:.1%} of the MACs are left" if macs else ""
    return f"{going_words(structure, fewest)}{share}"


def block_rows(structure: Structure) -> list[Row]:
    """Name, kind and costs of the blocks, alike ones together; `BLOCK_COLUMNS` says what is what."""
    macs, parameters = predicted_macs(structure), predicted_parameters(structure)
    cells = [
        (
            block.kind,
            format_count(block.macs),
            _share(block.macs, macs),
            format_count(block_parameters(structure, block)),
            _share(block_parameters(structure, block), parameters),
        )
        for block in structure.blocks
    ]
    found = alike([block.name for block in structure.blocks], cells)
    return [(one.label, *cells[one.indices[0]]) for one in found]


def stuck_lines(structure: Structure) -> list[str]:
    """What looked like blocks and stays, with the first reason why, and layers that could be blocks."""
    alone = lone_layers(structure.channels, structure.blocks)
    lines = [lone_words(name_together(alone, most=6))] if alone else []
    if not structure.stuck:
        return lines
    first = next(iter(structure.stuck.values()))
    return [f"found, but the trial could not remove {name_together(list(structure.stuck), most=6)}: {first}", *lines]


def uncut_lines(structure: Structure) -> list[str]:
    """The groups that the trial could not cut, by why; of reasons that differ in numbers alone the first stands."""
    found: dict[str, tuple[str, list[str]]] = {}
    for group in structure.channels:
        if could_not_be_cut(group):
            why = in_words(group.reason).text
            found.setdefault(re.sub(r"\d+", "#", why), (why, []))[1].append(group.name)
    return [f"the trial could not cut {name_together(names, most=6)}: {why}" for why, names in found.values()]


def could_not_be_cut(group: ChannelGroup) -> bool:
    """Whether it stays because a trial failed."""
    return not group.removable and group.reason.startswith("the cut model")


def block_parameters(structure: Structure, block: Block) -> int:
    """How many parameters go with the block."""
    return sum(prod(structure.shapes[name]) for name in block.parameters if name in structure.shapes)


def pin_rows(structure: Structure) -> list[Row]:
    """One row per reason and line of the user's code: why, on how many axes, which (`PIN_COLUMNS`)."""
    return [
        (f"{why}\n{source}" if source else why, str(count), which)
        for why, count, which, source in reasons_to_stay(structure)
    ]


def reasons_to_stay(structure: Structure) -> list[tuple[str, int, str, str]]:
    """For each reason why axes stay: the reason, on how many axes, which, and the line of the user's code ("")."""
    found: dict[tuple[str, str], tuple[list[str], list[str]]] = {}
    for pin in structure.pins:
        reason = in_words(pin.reason)
        axes, modules = found.setdefault((_alike_text(reason.text), pin.source), ([], []))
        axes.append(f"{pin.parameter}[{pin.axis}]")
        modules += [reason.module] if reason.module else []
    return [
        (text + (f", in {name_together(modules)}" if modules else ""), len(axes), name_together(axes), source)
        for (text, source), (axes, modules) in found.items()
    ]


def _alike_text(text: str) -> str:
    """The reason that is common to all axes: one such as "it is all of fc.weight, axis 1" names its own axis."""
    return re.sub(r"^it is all of \S+, axis \d+", "the layer would be empty: it is all of the axis", text)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def group_page(group: ChannelGroup) -> Page:
    """What a group is, and the axes on which its channels lie."""
    widths = [(member.role, f"{len(member.indices[0])}" if member.indices else "0") for member in group.members]
    found = alike([f"{member.parameter}[{member.axis}]" for member in group.members], widths)
    folds = name_together(group.folds, most=4)
    return Page(
        f"ChannelGroup {group.name}: {group.size} channels of kind {group.kind}, {exactness(group)}",
        ((f"a constant when zeroed, which moves into the bias of {folds}",) if group.removable and group.folds else ()),
        first_rows(
            ("parameter[axis]", "role", ">positions per channel"),
            [(one.label, *widths[one.indices[0]]) for one in found],
            2 * MOST_ROWS,
            "axes: group.members",
        ),
        "more: group.members[0].indices, group.to_json()",
    )


def exactness(group: ChannelGroup) -> str:
    """Whether its channels can go, and why not."""
    if group.exact:
        return "exact"
    return f"not exact{', but asked for' if group.removable else ''}: {in_words(group.reason or group.unproven).text}"


def block_page(block: Block) -> Page:
    """What a block is, its parameters, and what goes with it."""
    leaves = "nn.Identity" if block.call is None else _stand_in(leaf.kind for leaf in block.call.leaves)
    return Page(
        f"Block {block.name}: kind {block.kind}, {format_count(block.macs)} MACs, {len(block.parameters)} parameters",
        (
            f"parameters: {name_together(block.parameters, most=2 * MOST_ROWS)}",
            f"in its place: {leaves}",
            *([f"channels that go with it: {name_together(block.channels, most=MOST_ROWS)}"] if block.channels else []),
        ),
        more="more: block.to_json()",
    )


def _stand_in(kinds: Iterable[str]) -> str:
    return f"what returns {', '.join(kinds)}"
