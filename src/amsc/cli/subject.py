"""What `inspect` and `measure` share: the flags that say which network, and a JSON file beside the words."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amsc.cli.console import Console
from amsc.cli.flags import MODEL_HELP, add_network_flag
from amsc.errors import RunFolderError
from amsc.storage import write_atomically

__all__ = ["add_subject_flags", "input_shape", "write_json"]


def add_subject_flags(parser: argparse.ArgumentParser) -> None:
    """MODEL, --model, --weights, --data, --input-shape."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help=f"the network: {MODEL_HELP}; or the folder of a run or a saved model",
    )
    add_network_flag(parser)
    parser.add_argument("--weights", metavar="FILE", help="trained weights (.safetensors, .pt, .pth, .th)")
    parser.add_argument("--data", metavar="DATA", help="take classes and example inputs from this data")
    parser.add_argument(
        "--input-shape",
        metavar="B,C,H,W",
        type=input_shape,
        help="shape of the example input, batch first (default: what the network was made for)",
    )


def input_shape(text: str) -> tuple[int, ...]:
    """The shape that "1,3,32,32" or "1x3x32x32" says."""
    try:
        shape = tuple(int(size) for size in text.replace("x", ",").split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected sizes such as 1,3,32,32, got {text!r}") from error
    if any(size < 1 for size in shape):
        raise argparse.ArgumentTypeError(f"expected sizes of 1 or more, got {text!r}")
    return shape


def write_json(folder: Path, name: str, payload: Mapping[str, Any], console: Console) -> None:
    """Write `payload` to a file in `folder`, which is made if need be; a file that is there is not overwritten.

    Raises:
        RunFolderError: the file exists, or cannot be written.
    """
    path = folder / name
    if path.exists():
        raise RunFolderError(f"{path} exists already: name another --out")
    write_atomically(path, json.dumps(payload, indent=2).encode(), make_folder=True)
    console.note(f"written: {path}")
