"""`amsc pick`: networks for other budgets from a path that has been walked."""

import argparse
from pathlib import Path
from typing import Any

from amsc.cli.console import Console
from amsc.cli.flags import COMMON_SETTINGS, SETTING_FLAGS, add_object_flags, add_setting_flags
from amsc.cli.opening import SETTINGS_FILE, named
from amsc.cli.parser import UsageError, add_command, add_output_flags
from amsc.cli.working import begin_pick, payload, show_outcome
from amsc.errors import RunFolderError
from amsc.limits.target import parse_target
from amsc.settings import Settings

__all__ = ["add_parser", "run"]

DESCRIPTION = """\
Make and fine-tune networks for other budgets from a path that has been walked, by
`amsc path` or `amsc compress`. Nothing is walked again: the last point of the path
above the target loses what the penalty would empty next, and is fine-tuned. RUN is
only read; each result is a run folder of its own.
"""
EXAMPLES = """\
  amsc pick runs/path --target macs=60%
  amsc pick runs/path --target macs=60% --target macs=45% --finetune-epochs 20
  amsc pick runs/path --target latency=5ms --target 'params=100k, macs=50%' --target drop=1%
"""
RECOVERY = ("label_smoothing", "distillation", "temperature", "ema", "score_every")
NAMES = tuple(name for name in SETTING_FLAGS if name.startswith("finetune") or name in RECOVERY)


def add_parser(commands: Any) -> None:
    """Add `pick` to the commands."""
    parser = add_command(
        commands, "pick", run, summary="another budget from a walked path", description=DESCRIPTION, examples=EXAMPLES
    )
    parser.add_argument("folder", metavar="RUN", type=Path, help="the run folder of the path")
    parser.add_argument(
        "--target", metavar="T", action="append", help="what may be left or lost, such as macs=60%% (may be repeated)"
    )
    parser.add_argument(
        "--out", metavar="FOLDER", type=Path, help="new folder for the result (default: RUN/picks/TARGET)"
    )
    parser.add_argument("--seed", metavar="N", type=int, help="seed of the fine-tuning (default: that of the path)")
    add_object_flags(parser)
    add_setting_flags(parser, names=NAMES)
    add_output_flags(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Pick and fine-tune, show each outcome, and return 0."""
    folder: Path = args.folder
    if not (folder / SETTINGS_FILE).is_file():
        raise RunFolderError(f"{folder} is not a run folder: it holds no {SETTINGS_FILE}")
    if not args.target:
        raise UsageError("--target T is missing: say what the network may cost, such as --target macs=60%")
    if args.out is not None and len(args.target) > 1:
        raise UsageError("--out names one folder, but there are several targets; leave it out, or pick one at a time")
    for target in args.target:
        parse_target(target)
    walked = named(folder / SETTINGS_FILE, args)
    given = {name: getattr(args, name, None) for name in (*COMMON_SETTINGS, *NAMES)}
    if not walked.settings.finetune_epochs and given["finetune_epochs"] is None:  # the path itself has none
        given["finetune_epochs"] = Settings().finetune_epochs
    outcomes = []
    for target in args.target:
        record, result = begin_pick(walked.changed({"target": target}, given), folder, args.out, console)
        show_outcome(record, result, console)
        outcomes.append(payload(record, result))
    console.json({"picks": outcomes})
    return 0
