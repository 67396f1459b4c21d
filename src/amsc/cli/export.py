"""`amsc export`: a network as a file that other programs run."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from amsc.cli.console import Console
from amsc.cli.flags import add_run_flags, run_settings
from amsc.cli.opening import open_dense, open_subject, torch_as_set
from amsc.cli.parser import UsageError, add_command, add_output_flags
from amsc.cli.subject import add_subject_flags, write_json
from amsc.export import Exported, export_onnx, export_pt2, export_standalone
from amsc.limits.clock import CLOCKS
from amsc.words.amounts import format_bytes, format_seconds

__all__ = ["add_parser", "run"]

SLOW = 0.95
"""A share of the dense network's time that is no gain."""
DESCRIPTION = """\
Write a network as ONNX (one file) or as a torch.export program (.pt2), which run
without its Python code, or as Python code of its own that needs no amsc. The file is
run again on batches of several sizes and is written only if it gives the network's
outputs. An ONNX file of a run is timed in onnxruntime beside its dense network.

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
        "--standalone", metavar="FOLDER", type=Path, help="write model.py and model.safetensors, which need no amsc"
    )
    parser.add_argument(
        "--fixed-batch", action="store_true", help="only for the batch size of the example input, not for any"
    )
    parser.add_argument(
        "--dynamic-axes",
        metavar="A,A",
        type=_axes,
        default=(),
        help="other axes of any size, such as 2,3 of images or 1 of texts",
    )
    add_run_flags(parser, out="also write export.json into this folder")
    add_output_flags(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Export, show what was written, and return 0."""
    if args.onnx is None and args.pt2 is None and args.standalone is None:
        raise UsageError("say what to write: --onnx FILE, --pt2 FILE, --standalone FOLDER")
    wanted = run_settings(args)
    exporters = ((export_onnx, args.onnx), (export_pt2, args.pt2))
    with torch_as_set(wanted.settings):
        model, inputs = open_subject(args, wanted)
        written = [
            export(model, inputs, path, dynamic_batch=not args.fixed_batch, dynamic_axes=args.dynamic_axes)
            for export, path in exporters
            if path
        ]
        if args.standalone is not None:
            written.append(export_standalone(model, inputs, args.standalone))
        console.table(str(wanted.model), ["file", "format", ">size", "of any size", ">difference"], map(_row, written))
        result: dict[str, Any] = {"model": wanted.model, "files": [dataclasses.asdict(file) for file in written]}
        dense = open_dense(args, wanted) if args.onnx is not None else None
        if dense is not None:
            (before, _), (after, _) = CLOCKS["onnxruntime"]([dense, model], inputs)
            result["onnxruntime"] = {"dense_seconds": before, "seconds": after}
            _show_times(before, after, _odd_widths(dense, model), console)
    if args.out is not None:
        write_json(args.out, "export.json", result, console)
    console.json(result)
    return 0


def _axes(text: str) -> tuple[int, ...]:
    """The axes that "2,3" says."""
    try:
        return tuple(int(axis) for axis in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected numbers of axes such as 2,3, got {text!r}") from error


def _show_times(dense: float, small: float, odd: Sequence[str], console: Console) -> None:
    """Whether the file is faster than that of the dense network would be, on the example inputs."""
    ratio = small / dense
    console.show(f"onnxruntime: {format_seconds(small)}, the dense network {format_seconds(dense)} ({ratio:.2f} of it)")
    if ratio > SLOW:
        words = f"; {len(odd)} layers are no longer a multiple of 8 wide, such as {odd[0]}" if odd else ""
        console.warning(
            f"it is hardly faster in onnxruntime on these inputs{words}; compress with --target "
            "latency=60%@onnxruntime, --round-to 8, or for larger batches"
        )


def _odd_widths(dense: nn.Module, small: nn.Module) -> list[str]:
    """The layers whose outputs were a multiple of 8 and are no more."""
    before = {name: len(tensor) for name, tensor in dense.named_parameters() if tensor.ndim > 1}
    after = {name: len(tensor) for name, tensor in small.named_parameters() if tensor.ndim > 1}
    return [name for name, size in after.items() if size % 8 and before.get(name, 1) % 8 == 0]


def _row(file: Exported) -> tuple[str, ...]:
    axes = ", ".join(["batch"] * file.dynamic_batch + [str(axis) for axis in file.dynamic_axes]) or "none"
    axes = "as the code allows" if file.format == "standalone" else axes
    return file.path, file.format, format_bytes(file.bytes), axes, f"{file.error:.1e}"
