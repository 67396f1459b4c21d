"""`amsc path`: walk the path once, down to a low budget, for `amsc pick` to choose from."""

import argparse
from typing import Any

from amsc.cli.console import Console
from amsc.cli.flags import (
    MODEL_HELP,
    SETTING_FLAGS,
    TASK_HELP,
    add_limit_flags,
    add_run_flags,
    add_setting_flags,
    check_named,
    required,
    run_settings,
)
from amsc.cli.parser import UsageError, add_command, add_output_flags
from amsc.cli.working import begin, payload, show_path
from amsc.limits.target import parse_target
from amsc.settings import Settings

__all__ = ["add_parser", "run"]

DESCRIPTION = """\
Walk the AMSC path of a trained network once, from the dense network down to the
target, without fine-tuning, and keep the network of every point. `amsc pick` then
makes and fine-tunes a network for any budget on the way, without walking again.
"""
EXAMPLES = """\
  amsc path digits_resnet --data digits --dense-epochs 8 --target macs=30% --out runs/path
  amsc pick runs/path --target macs=60% --target macs=45%
"""
DEFAULTS = Settings(finetune_epochs=0.0, path_points=12)
NAMES = tuple(name for name in SETTING_FLAGS if not name.startswith("finetune"))


def add_parser(commands: Any) -> None:
    """Add `path` to the commands."""
    parser = add_command(
        commands,
        "path",
        run,
        summary="walk the path once, for many budgets",
        description=DESCRIPTION,
        examples=EXAMPLES,
    )
    parser.add_argument("model", metavar="MODEL", nargs="?", help=f"the network: {MODEL_HELP}")
    parser.add_argument("--data", metavar="DATA", help="digits, parquet:PATH, folder:PATH or module:function")
    parser.add_argument("--target", metavar="T", help="how far down, such as macs=30%% or params=100k")
    parser.add_argument("--task", metavar="TASK", help=TASK_HELP)
    parser.add_argument("--weights", metavar="FILE", help="trained weights (.safetensors, .pt, .pth, .th)")
    add_limit_flags(parser)
    add_setting_flags(parser, names=NAMES, defaults=DEFAULTS)
    add_run_flags(parser, out="new folder for the run (default: runs/MODEL-DATE-TIME)", defaults=DEFAULTS)
    add_output_flags(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Walk, show the points, and return 0."""
    wanted = run_settings(args, defaults=DEFAULTS)
    check_named(wanted)
    target = parse_target(required(wanted.target, "--target T"))
    if target.drop is not None or target.is_free:
        where = "amsc compress" if target.is_free else "amsc pick"
        raise UsageError(f"a path goes down to a cost, such as --target macs=30%; what may be lost is for {where}")
    record, folder = begin(wanted, args.out, console)
    show_path(record, console)
    console.show(f"any budget on the way: amsc pick {folder} --target macs=...")
    console.json(payload(record, folder))
    return 0
