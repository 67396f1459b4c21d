"""`amsc inspect`: what can go, what cannot and why, and what everything costs."""

import argparse
import dataclasses
from typing import Any

from torch import nn

from amsc.cli.console import Console
from amsc.cli.flags import add_limit_flags, add_run_flags, run_settings
from amsc.cli.inspect_tables import View, show
from amsc.cli.opening import open_subject, torch_as_set
from amsc.cli.outline import flat, outline
from amsc.cli.parser import add_command, add_output_flags
from amsc.cli.subject import add_subject_flags, write_json
from amsc.errors import CutError
from amsc.structure import ChannelGroup, Pin, Structure, select, trace, with_inexact
from amsc.structure.costing import channel_macs, predicted_macs, predicted_parameters
from amsc.structure.words import block_parameters
from amsc.surgery import cuttable, uniformly_removable
from amsc.words.reasons import in_words

__all__ = ["add_parser", "run"]

DESCRIPTION = """\
Look at a network without changing it: the tree of its modules with what each costs,
the channel groups (channels that live and die together), the blocks that can be
removed whole, and the axes that are pinned, with the reason and the source line.

Everything that is said to be removable has been removed from a copy, on trial
(--no-trial leaves that out). Without --tree, --groups, --blocks or --pins you get
the beginning of each.
"""
EXAMPLES = """\
  amsc inspect resnet20
  amsc inspect resnet20 --tree --depth 2
  amsc inspect resnet20 --explain layer3.0.conv1
  amsc inspect resnet20 --explain 'layer3.*.bn?.weight'
  amsc inspect torchvision:mobilenet_v2 --input-shape 1,3,224,224 --json
"""
SECTIONS = {
    "tree": "show the whole tree of modules",
    "groups": "show all channel groups",
    "blocks": "show all removable blocks",
    "pins": "show all pinned axes, by reason",
}


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
    group = parser.add_argument_group("what to show")
    for name, words in SECTIONS.items():
        group.add_argument(f"--{name}", action="store_true", help=words)
    group.add_argument("--depth", metavar="N", type=_depth, help="levels of the tree (default: what fits, or all)")
    group.add_argument(
        "--explain",
        metavar="NAME",
        help="only say who shares the axes of this parameter, module or glob, or why they stay",
    )
    group.add_argument("--no-trial", action="store_true", help="do not try the removals on a copy")
    add_limit_flags(parser)
    add_run_flags(parser, out="also write structure.json into this folder")
    add_output_flags(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Trace, try, show, and return 0."""
    wanted = run_settings(args)
    with torch_as_set(wanted.settings):
        model, inputs = open_subject(args, wanted)
        traced = trace(model, inputs)
        traced = with_inexact(traced) if wanted.settings.inexact else traced
        tried, failure = (traced, "") if args.no_trial else _tried(model, traced, inputs)
    structure = select(tried, keep=wanted.settings.keep, only=wanted.settings.only)
    if wanted.settings.uniform:
        structure = uniformly_removable(structure, model)
    if args.explain is not None:
        text = structure.explain(args.explain)
        console.show(text)
        result = {"model": wanted.model, "parameter": args.explain, "explanation": text}
    else:
        rounding = wanted.settings.rounding(structure)
        is_tried = not args.no_trial and not failure
        view = View(str(wanted.model), structure, _missing(tried, structure), is_tried, rounding)
        sections = tuple(name for name in SECTIONS if getattr(args, name))
        show(view, outline(model, structure), console, sections=sections, depth=args.depth)
        result = _summary(view, model)
    if failure:
        console.show(f"the trial failed: {failure}")
        result["trial_failure"] = failure
    if args.out is not None:
        write_json(args.out, "structure.json", result, console)
    console.json(result)
    return 0


def _depth(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of levels, 1 or more; got {text!r}")
    return int(text)


def _tried(model: nn.Module, structure: Structure, inputs: Any) -> tuple[Structure, str]:
    """What is left after a trial, and why there is none if there is none."""
    try:
        return cuttable(model, structure, inputs), ""
    except CutError as error:
        return structure, str(error)


def _missing(before: Structure, after: Structure) -> tuple[str, ...]:
    """The blocks that are only in the structure before."""
    left = {block.name for block in after.blocks}
    return tuple(block.name for block in before.blocks if block.name not in left)


def _summary(view: View, model: nn.Module) -> dict[str, Any]:
    structure = view.structure
    return {
        "model": view.name,
        "parameters": predicted_parameters(structure),
        "macs": predicted_macs(structure),
        "tried": view.is_tried,
        "modules": list(flat(outline(model, structure, together=False))),
        "groups": [_group(view, group) for group in structure.channels],
        "blocks": [
            {**dataclasses.asdict(block), "num_parameters": block_parameters(structure, block)}
            for block in structure.blocks
        ],
        "stuck_blocks": dict(structure.stuck),
        "kept_blocks": list(view.kept),
        "pins": [_pin(pin) for pin in structure.pins],
        "unused": list(structure.unused),
    }


def _group(view: View, group: ChannelGroup) -> dict[str, Any]:
    structure = view.structure
    return {
        "name": group.name,
        "kind": group.kind,
        "size": group.size,
        "exact": group.exact,
        "removable": group.removable,
        "reason": group.reason or group.unproven,
        "folds": list(group.folds),
        "fewest": view.rounding.fewest(group),
        "members": [{"parameter": m.parameter, "axis": m.axis, "role": m.role} for m in group.members],
        "macs_per_channel": channel_macs(structure, group.name),
        "parameters_per_channel": predicted_parameters(structure) - predicted_parameters(structure, {group.name: [0]}),
    }


def _pin(pin: Pin) -> dict[str, Any]:
    return {**dataclasses.asdict(pin), "words": in_words(pin.reason).text}
