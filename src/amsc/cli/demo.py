"""`amsc demo`: the whole job on embedded data, and a check that fails if the outcome is not what it should be."""

import argparse
import dataclasses
from typing import Any

from amsc.cli.console import Console
from amsc.cli.flags import add_run_flags, run_settings
from amsc.cli.parser import add_command, add_output_flags
from amsc.cli.working import begin, payload, show_outcome
from amsc.limits.target import parse_target
from amsc.records import Record
from amsc.settings import Settings

__all__ = ["FAILED", "SETTINGS", "SHORT_SETTINGS", "add_parser", "faults", "run"]

FAILED = 9
TARGET = "macs=50%"
# The budget may be missed by this share of itself, as everywhere; the score may fall by so much.
BUDGET_TOLERANCE = 0.01
SCORE_TOLERANCE = 0.03
SHORT_SCORE_TOLERANCE = 0.10

SETTINGS = Settings(
    dense_epochs=16,
    finetune_epochs=20,
    batch_size=64,
    dense_learning_rate=0.1,
    threads=1,  # tensors so small that a second thread only gets in the way
)
SHORT_SETTINGS = dataclasses.replace(SETTINGS, dense_epochs=5, finetune_epochs=4, path_points=2)

DESCRIPTION = """\
The whole job on the 1,797 handwritten digits that come with scikit-learn: train a
small ResNet, compress it to half of its multiply-adds by removing blocks and
filters, verify the cut, fine-tune, and show before and after.

It is a check as well: it exits with code 9 if no block or no filter was removed, the
budget was missed, or the accuracy was lost.
"""
EXAMPLES = """\
  amsc demo
  amsc demo --short --seed 1 --out demo-run
"""


def add_parser(commands: Any) -> None:
    """Add `demo` to the commands."""
    parser = add_command(
        commands,
        "demo",
        run,
        summary="the whole job on embedded data, in minutes",
        description=DESCRIPTION,
        examples=EXAMPLES,
    )
    parser.add_argument("--short", action="store_true", help="a quarter of the training, for tests; less accurate")
    add_run_flags(parser, out="new folder for the run (default: runs/demo-DATE-TIME)", defaults=SETTINGS)
    add_output_flags(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Run the demo, show the outcome, and return 0 if it is what it should be."""
    said = run_settings(args, defaults=SHORT_SETTINGS if args.short else SETTINGS)
    wanted = dataclasses.replace(said, model="digits_resnet", weights=None, data="digits", target=TARGET)
    record, folder = begin(wanted, args.out, console, name="demo")
    show_outcome(record, folder, console)
    found = faults(record, score_tolerance=SHORT_SCORE_TOLERANCE if args.short else SCORE_TOLERANCE)
    for fault in found:
        console.error(f"the demo is not as it should be: {fault}")
    console.json({**payload(record, folder), "faults": found})
    return FAILED if found else 0


def faults(record: Record, *, score_tolerance: float = SCORE_TOLERANCE) -> list[str]:
    """What is wrong with the outcome of a demo, one sentence each; empty if nothing is."""
    share, budget = record.after.macs / record.before.macs, parse_target(record.target).limits["macs"].number
    found = []
    if not record.removed_blocks:
        found.append("no block was removed")
    if not any(record.removed_channels.values()):
        found.append("no filter was removed")
    if abs(share - budget) > BUDGET_TOLERANCE * budget:
        found.append(f"{share:.2%} of the MACs are left, expected {budget:.0%} within {BUDGET_TOLERANCE:.0%} of that")
    if not record.score_after >= record.score_before - score_tolerance:
        found.append(f"{record.score_name} fell from {record.score_before:.2%} to {record.score_after:.2%}")
    return found
