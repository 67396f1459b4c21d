"""`amsc export`: a network as a file that other programs run."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from amsc.cli.console import Console
from amsc.cli.flags import add_output_flags, add_run_flags, run_settings
from amsc.cli.opening import open_subject, torch_as_set
from amsc.cli.parser import UsageError, add_command
from amsc.cli.subject import add_subject_flags, write_json
from amsc.export import Exported, export_onnx, export_pt2
from amsc.words.amounts import format_bytes

__all__ = ["add_parser", "run"]

DESCRIPTION = """\
Write a network as ONNX (one file) or as a torch.export program (.pt2), which run
without its Python code. The file is run again on batches of several sizes and is
written only if it gives the network's outputs.

MODEL is a run folder, the folder of a saved model, or a network by name. ONNX needs
more packages: pip install 'amsc[onnx]'
"""
EXAMPLES = """\
  amsc export runs/resnet20-20250101-120000 --onnx small.onnx
  amsc export runs/resnet20-20250101-120000 --onnx small.onnx --pt2 small.pt2
  amsc export torchvision:mobilenet_v2 --pt2 mobilenet.pt2 --fixed-batch
"""


def add_parser(commands: Any) -> None:
    """Add `export` to the commands."""
    parser = add_command(
        commands,
        "export",
        run,
        summary="write a network as ONNX or .pt2",
        description=DESCRIPTION,
        examples=EXAMPLES,
    )
    add_subject_flags(parser)
    parser.add_argument("--onnx", metavar="FILE", type=Path, help="write this ONNX file")
    parser.add_argument("--pt2", metavar="FILE", type=Path, help="write this torch.export program")
    parser.add_argument(
        "--fixed-batch", action="store_true", help="only for the batch size of the example input, not for any"
    )
    add_run_flags(parser, out="also write export.json into this folder")
    add_output_flags(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Export, show what was written, and return 0."""
    if args.onnx is None and args.pt2 is None:
        raise UsageError("say what to write: --onnx FILE, --pt2 FILE or both")
    wanted = run_settings(args)
    exporters = ((export_onnx, args.onnx), (export_pt2, args.pt2))
    with torch_as_set(wanted.settings):
        model, inputs = open_subject(args, wanted)
        written = [
            export(model, inputs, path, dynamic_batch=not args.fixed_batch) for export, path in exporters if path
        ]
    console.table(str(wanted.model), ["file", "format", ">size", "batch", ">difference"], map(_row, written))
    result = {"model": wanted.model, "files": [dataclasses.asdict(file) for file in written]}
    if args.out is not None:
        write_json(args.out, "export.json", result, console)
    console.json(result)
    return 0


def _row(file: Exported) -> tuple[str, ...]:
    batch = "any" if file.dynamic_batch else "fixed"
    return file.path, file.format, format_bytes(file.bytes), batch, f"{file.error:.1e}"
