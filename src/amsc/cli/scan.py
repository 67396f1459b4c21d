"""`amsc scan`: the frontier in a minute, without training."""

import argparse
import dataclasses
from typing import Any

from amsc.cli.console import Console
from amsc.cli.flags import (
    MODEL_HELP,
    TASK_HELP,
    add_limit_flags,
    add_run_flags,
    add_setting_flags,
    check_named,
    run_settings,
)
from amsc.cli.opening import open_both, task_of, torch_as_set
from amsc.cli.parser import add_command, add_output_flags
from amsc.cli.subject import write_json
from amsc.errors import RunFolderError, TargetError
from amsc.jobs.scan import EXAMPLES, SHARES, scan
from amsc.limits.target import Target, parse_target
from amsc.models import has_own_weights, is_function
from amsc.report import scan_columns, scan_remarks, scan_rows
from amsc.training import DIMENSIONS

__all__ = ["add_parser", "run"]

DESCRIPTION = """\
Find out in about a minute, without training, what could go from a trained network for
each budget, and what that is predicted to do to the loss. Every block and channel gets
a gate; from the derivatives of the loss of some training examples by all gates, the
path on which they close is solved to the end, blocks first. With --evaluate, or with
--reconstruction N, each network is also cut and refitted in closed form to the whole one,
which takes several times as long.

`amsc compress` finds better networks, by judging whole ones and training what is left;
a scan tells what to expect, and where the network breaks.
"""
EXAMPLES_OF_USE = """\
  amsc scan resnet20 --weights resnet20.th --data parquet:cifar10
  amsc scan resnet20 --weights resnet20.th --data parquet:cifar10 --evaluate --latency
  amsc scan digits_resnet --data digits --dimensions width --target macs=60% --target macs=40%
"""
FILES = ("scan.json", "scan.html")


def add_parser(commands: Any) -> None:
    """Add `scan` to the commands."""
    parser = add_command(
        commands,
        "scan",
        run,
        summary="the frontier in a minute, without training",
        description=DESCRIPTION,
        examples=EXAMPLES_OF_USE,
    )
    parser.add_argument("model", metavar="MODEL", nargs="?", help=f"the network: {MODEL_HELP}")
    parser.add_argument("--data", metavar="DATA", help="digits, parquet:PATH, folder:PATH or module:function")
    parser.add_argument("--task", metavar="TASK", help=TASK_HELP)
    parser.add_argument("--weights", metavar="FILE", help="trained weights (.safetensors, .pt, .pth, .th)")
    group = parser.add_argument_group("what to look at")
    shares = ", ".join(f"{share:.0%}" for share in SHARES).replace("%", "%%")
    group.add_argument(
        "--target",
        metavar="T",
        action="append",
        help=f"a share of the MACs such as macs=60%% (may be repeated; default: {shares})",
    )
    group.add_argument(
        "--dimensions", choices=DIMENSIONS, default="both", help="what may go: blocks, channels, or both (the default)"
    )
    group.add_argument(
        "--examples", metavar="N", type=int, default=EXAMPLES, help="training examples (default: %(default)s)"
    )
    group.add_argument(
        "--power",
        metavar="P",
        type=float,
        default=1.0,
        help="gates weigh their size in the currency to this power; 0.5 is AMSC's square root (default: %(default)s)",
    )
    group.add_argument("--evaluate", action="store_true", help="cut each network, and judge it on the validation split")
    group.add_argument("--latency", action="store_true", help="cut each network, and time it on this machine")
    names = ("depth_share", "currency", "prices", "reconstruction", "batch_size", "limit", "flip")
    add_setting_flags(parser, names=names)
    add_limit_flags(parser)
    add_run_flags(parser, out=f"also write {' and '.join(FILES)} into this folder")
    add_output_flags(parser)


def _share(text: str) -> float:
    target = parse_target(text)
    amount = target.limits.get("macs")
    if amount is None or not amount.is_share or target != Target(macs=amount.number):
        raise TargetError(f"a scan is for shares of the MACs, such as macs=50%; got {text!r}")
    return amount.number


def run(args: argparse.Namespace, console: Console) -> int:
    """Scan, show the frontier, and return 0."""
    wanted = dataclasses.replace(run_settings(args), target=None)
    check_named(wanted, ("model", "data", "task"))
    shares = [_share(text) for text in args.target or ()] or SHARES
    if args.out is not None and (there := [name for name in FILES if (args.out / name).exists()]):
        raise RunFolderError(f"{args.out / there[0]} exists already: name another --out")
    model_name = str(wanted.model)
    has_weights = is_function(model_name) or has_own_weights(model_name)  # a function may have loaded them
    if wanted.weights is None and not has_weights:
        console.note("no --weights: the network is scanned as it is initialised, which says little of a trained one")
    with torch_as_set(wanted.settings):
        model, data, wanted = open_both(wanted)
        with console.progress() as listener:
            found = scan(
                model.eval(),
                data.example_inputs(1),
                data,
                task=task_of(wanted),
                settings=wanted.settings,
                examples=args.examples,
                power=args.power,
                dimensions=args.dimensions,
                shares=shares,
                evaluate=args.evaluate,
                latency=args.latency,
                reconstruct=bool(args.reconstruction),
                model_name=model_name,
                progress=listener,
            )
    record = found.record
    columns = [name if name == "" else f">{name}" for name in scan_columns(record)]
    title, remarks = f"{record.model} on {record.data}, {record.examples} examples", "\n".join(scan_remarks(record))
    console.table(title, columns, scan_rows(record), note=remarks)
    console.note(f"{sum(record.seconds.values()):.1f} s; nothing was trained")
    if args.out is not None:
        write_json(args.out, FILES[0], dataclasses.asdict(record), console)
        found.report(args.out / FILES[1])
        console.note(f"written: {args.out / FILES[1]}")
    console.json({"scan": dataclasses.asdict(record)})
    return 0
