"""`amsc measure`: what a network costs on this machine."""

import argparse
import dataclasses
from dataclasses import replace
from typing import Any

from amsc.cli.console import Console
from amsc.cli.flags import add_run_flags, run_settings
from amsc.cli.opening import open_subject, torch_as_set
from amsc.cli.parser import add_command, add_output_flags
from amsc.cli.subject import add_subject_flags, write_json
from amsc.limits.clock import CLOCKS
from amsc.measurement import measure
from amsc.records import Measurement
from amsc.words.amounts import format_bytes, format_count, format_seconds

__all__ = ["add_parser", "run"]

DESCRIPTION = """\
Measure a network on this machine: parameters, bytes, multiply-adds, latency (median
and spread) and peak memory, for one batch of example inputs.

MODEL is a network by name or the folder of a saved one, such as runs/NAME/model.
"""
EXAMPLES = """\
  amsc measure resnet56
  amsc measure torchvision:mobilenet_v2 --input-shape 8,3,224,224
  amsc measure runs/resnet20-20250101-120000/model --json
  amsc measure runs/resnet20-20250101-120000 --runtime onnxruntime
"""


def add_parser(commands: Any) -> None:
    """Add `measure` to the commands."""
    parser = add_command(
        commands,
        "measure",
        run,
        summary="what a network costs on this machine",
        description=DESCRIPTION,
        examples=EXAMPLES,
    )
    add_subject_flags(parser)
    parser.add_argument("--runs", metavar="N", type=int, default=20, help="timed calls (default: %(default)s)")
    parser.add_argument(
        "--runtime", choices=list(CLOCKS), default="torch", help="where it is timed (default: %(default)s)"
    )
    add_run_flags(parser, out="also write measurement.json into this folder")
    add_output_flags(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Measure, show, and return 0."""
    wanted = run_settings(args)
    with torch_as_set(wanted.settings):
        model, inputs = open_subject(args, wanted)
        cost = measure(model, inputs, runs=args.runs)
        if args.runtime != cost.runtime:
            [(seconds, spread)] = CLOCKS[args.runtime]([model], inputs, rounds=args.runs)
            cost = replace(cost, latency_seconds=seconds, latency_spread_seconds=spread, runtime=args.runtime)
    console.table(str(wanted.model), ["", ">value"], _rows(cost))
    console.show(", ".join(f"{key} {value}" for key, value in cost.machine.items()))
    result = {"model": wanted.model, "measurement": dataclasses.asdict(cost)}
    if args.out is not None:
        write_json(args.out, "measurement.json", result, console)
    console.json(result)
    return 0


def _rows(cost: Measurement) -> list[tuple[str, str]]:
    latency, spread = format_seconds(cost.latency_seconds), format_seconds(cost.latency_spread_seconds)
    return [
        ("parameters", f"{cost.parameters:,}"),
        ("size", format_bytes(cost.bytes)),
        ("MACs", f"{cost.macs:,} ({format_count(cost.macs)})"),
        (f"latency in {cost.runtime}, median of {cost.latency_runs}", f"{latency} ± {spread}"),
        ("peak memory", format_bytes(cost.peak_memory_bytes)),
    ]
