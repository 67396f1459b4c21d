"""`amsc compress`: the whole job."""

import argparse
from typing import Any

from amsc.cli.console import Console
from amsc.cli.flags import (
    MODEL_HELP,
    TASK_HELP,
    add_effort_flag,
    add_limit_flags,
    add_run_flags,
    add_setting_flags,
    check_named,
    run_settings,
)
from amsc.cli.parser import add_command, add_output_flags
from amsc.cli.working import begin, payload, show_outcome

__all__ = ["add_parser", "run"]

DESCRIPTION = """\
Compress a trained network to a budget: walk the AMSC path (depth first, then
width), cut blocks and filters for good, verify the cut, fine-tune, and write the
smaller network, the record and a report into a run folder.

The target limits macs, params, bytes, latency or memory, each as a share of the dense
network's (50%) or as an amount (20M, 100k, 400kB, 5ms, 10MB), or says how far the score
may drop after fine-tuning (drop=1%: one point of accuracy; drop=0.05: of a loss or any
score that is no share, in its own units); the smallest network of the path that keeps to
it is looked for. Several, with commas, are all kept. The target free is no budget: as
small as it goes for nothing, the smallest network whose validation score is within one
paired standard error of the best. It is looked for among networks that are reconstructed
and not trained (there is no path, and its flags are not used), and fine-tuned then. A run
that was stopped goes on with `amsc resume FOLDER`.
"""
EXAMPLES = """\
  amsc compress digits_resnet --data digits --target macs=50% --dense-epochs 8
  amsc compress resnet20 --weights resnet20.th --data parquet:cifar10 --target macs=40%
  amsc compress my_package.nets:build --data my_package.data:loaders --target macs=0.3
  amsc compress resnet20 --weights resnet20.th --data parquet:cifar10 --target 'latency=5ms, drop=1%'
  amsc compress resnet20 --weights resnet20.th --data parquet:cifar10 --target free
  amsc compress resnet20 --data parquet:cifar10 --target macs=50% --round-to 8 --keep 'layer1*'
  amsc compress --settings runs/earlier/settings.toml --seed 1
"""


def add_parser(commands: Any) -> None:
    """Add `compress` to the commands."""
    parser = add_command(
        commands,
        "compress",
        run,
        summary="compress a network to a budget",
        description=DESCRIPTION,
        examples=EXAMPLES,
    )
    parser.add_argument("model", metavar="MODEL", nargs="?", help=f"the network: {MODEL_HELP}")
    parser.add_argument("--data", metavar="DATA", help="digits, parquet:PATH, folder:PATH or module:function")
    parser.add_argument("--target", metavar="T", help="what may be left or lost, such as macs=50%%, or free")
    parser.add_argument("--task", metavar="TASK", help=TASK_HELP)
    parser.add_argument("--weights", metavar="FILE", help="trained weights (.safetensors, .pt, .pth, .th)")
    add_limit_flags(parser)
    add_effort_flag(parser)
    add_setting_flags(parser)
    add_run_flags(parser, out="new folder for the run (default: runs/MODEL-DATE-TIME)")
    add_output_flags(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Compress, show the outcome, and return 0."""
    wanted = run_settings(args)
    check_named(wanted)
    record, folder = begin(wanted, args.out, console)
    show_outcome(record, folder, console)
    console.json(payload(record, folder))
    return 0
