"""`amsc inspect`: what can go, what cannot and why, and what everything costs."""

import argparse
import dataclasses
from typing import Any

from amsc.cli.console import Console
from amsc.cli.flags import add_output_flags, add_run_flags, run_settings
from amsc.cli.opening import open_subject, torch_as_set
from amsc.cli.parser import add_command
from amsc.cli.subject import add_subject_flags, write_json
from amsc.report.tables import format_count
from amsc.structure import ChannelGroup, Pin, Structure, trace

__all__ = ["add_parser", "run"]

DESCRIPTION = """\
Look at a network without changing it: the channel groups (channels that live and
die together), the blocks that can be removed whole, the axes that are pinned with
the reason, and what everything costs in multiply-adds.
"""
EXAMPLES = """\
  amsc inspect resnet20
  amsc inspect resnet20 --explain layer3.0.conv1.weight
  amsc inspect torchvision:mobilenet_v2 --input-shape 1,3,224,224 --json
"""


def add_parser(commands: Any) -> None:
    """Add `inspect` to the commands."""
    parser = add_command(
        commands,
        "inspect",
        run,
        summary="what can go, what cannot and why",
        description=DESCRIPTION,
        examples=EXAMPLES,
    )
    add_subject_flags(parser)
    parser.add_argument(
        "--explain", metavar="PARAMETER", help="only say who shares the axes of this parameter, or why they stay"
    )
    add_run_flags(parser, out="also write structure.json into this folder")
    add_output_flags(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Trace, show, and return 0."""
    wanted = run_settings(args)
    with torch_as_set(wanted.settings):
        model, inputs = open_subject(args, wanted)
        structure = trace(model, inputs)
    if args.explain is not None:
        text = structure.explain(args.explain)
        console.show(text)
        result = {"model": wanted.model, "parameter": args.explain, "explanation": text}
    else:
        _show(structure, str(wanted.model), console)
        result = _summary(structure, str(wanted.model))
    if args.out is not None:
        write_json(args.out, "structure.json", result, console)
    console.json(result)
    return 0


def _show(structure: Structure, name: str, console: Console) -> None:
    console.show(f"{name}: {format_count(structure.parameters())} parameters, {format_count(structure.macs())} MACs")
    _show_groups(structure, console)
    _show_blocks(structure, console)
    _show_pins(structure, console)
    if structure.unused:
        console.show(f"unused by the forward pass: {', '.join(structure.unused)}")


def _show_groups(structure: Structure, console: Console) -> None:
    rows = [
        (
            group.name,
            group.kind,
            str(group.size),
            "yes" if group.exact else f"no: {group.reason}",
            str(len(group.members)),
            format_count(structure.channel_macs(group.name)),
        )
        for group in structure.channels
    ]
    columns = ["name", "kind", ">channels", "exact", ">members", ">MACs per channel"]
    console.table(f"{len(rows)} channel groups", columns, rows)


def _show_blocks(structure: Structure, console: Console) -> None:
    total = structure.macs()
    rows = [
        (
            block.name,
            str(len(block.parameters)),
            format_count(block.macs),
            f"{block.macs / total:.1%}" if total else "-",
        )
        for block in structure.blocks
    ]
    console.table(f"{len(rows)} removable blocks", ["name", ">tensors", ">MACs", ">share"], rows)


def _show_pins(structure: Structure, console: Console) -> None:
    """One row per reason; `--explain` and the JSON name every axis."""
    by_reason: dict[str, list[Pin]] = {}
    for pin in structure.pins:
        by_reason.setdefault(pin.reason, []).append(pin)
    rows = []
    for reason, pins in by_reason.items():
        names = [f"{pin.parameter}[{pin.axis}]" for pin in pins]
        more = f" and {len(names) - 2} more" if len(names) > 2 else ""
        rows.append((reason, str(len(names)), ", ".join(names[:2]) + more))
    console.table(f"{len(structure.pins)} pinned axes", ["reason", ">axes", "parameter[axis]"], rows)


def _summary(structure: Structure, name: str) -> dict[str, Any]:
    return {
        "model": name,
        "parameters": structure.parameters(),
        "macs": structure.macs(),
        "groups": [_group(structure, group) for group in structure.channels],
        "blocks": [dataclasses.asdict(block) for block in structure.blocks],
        "pins": [_pin(pin) for pin in structure.pins],
        "unused": list(structure.unused),
    }


def _group(structure: Structure, group: ChannelGroup) -> dict[str, Any]:
    return {
        "name": group.name,
        "kind": group.kind,
        "size": group.size,
        "exact": group.exact,
        "reason": group.reason,
        "members": [{"parameter": m.parameter, "axis": m.axis, "role": m.role} for m in group.members],
        "macs_per_channel": structure.channel_macs(group.name),
    }


def _pin(pin: Pin) -> dict[str, Any]:
    return dataclasses.asdict(pin)
