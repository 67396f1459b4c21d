"""The theorem put to the test: python -m benchmarks.theory [--sizes 250 ... 8000] [--seeds 0 1] [--replicates 25]

Each cell (one n, one seed) is written when it is done; the same command goes on where it was stopped. Result:
benchmarks/results/theory.json. `python -m benchmarks.theory.page` prints the table again and draws it.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from benchmarks.theory.arms import DEPTHS, PRACTICAL, RATES, WIDTHS
from benchmarks.theory.cells import Cell, Lengths, run
from benchmarks.theory.page import table
from benchmarks.theory.teachers import GAP, NOISE, STUDENT, TEACHER

from amsc.errors import SettingsError
from amsc.measurement import machine_stamp
from amsc.storage import write_atomically

RESULTS = Path(__file__).parents[1] / "results" / "theory.json"
SIZES = (250, 500, 1000, 2000, 4000, 8000)


def setup_of(replicates: int, lengths: Lengths, arms: Sequence[str]) -> dict[str, Any]:
    """What all cells of a file have in common."""
    return {
        "teacher": asdict(TEACHER),
        "student": asdict(STUDENT),
        "noise": NOISE,
        "gap": GAP,
        "depth_strengths": DEPTHS,
        "width_strengths": WIDTHS,
        "rates": {name: asdict(rate) for name, rate in RATES.items() if name in arms},
        "rules": {name: choice for name, choice in PRACTICAL.items() if name in arms},
        "replicates": replicates,
        "lengths": asdict(lengths),
    }


def opened(path: Path, setup: dict[str, Any]) -> dict[str, Any]:
    """The results that are there already, or none.

    Raises:
        SettingsError: they are of another setup.
    """
    setup = json.loads(json.dumps(setup))
    found: dict[str, Any] = {"machine": dict(machine_stamp()), "setup": setup, "cells": {}}
    if path.exists():
        found = json.loads(path.read_text())
        if found["setup"] != setup:
            raise SettingsError(f"{path} holds results of another setup; name another file with --out")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--replicates", type=int, default=25, help="in each cell")
    parser.add_argument("--steps", nargs=4, type=int, default=list(asdict(Lengths()).values()), help="see Lengths")
    parser.add_argument("--arms", nargs="+", default=[*RATES, *PRACTICAL], choices=[*RATES, *PRACTICAL])
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    lengths = Lengths(*options.steps)
    found = opened(options.out, setup_of(options.replicates, lengths, options.arms))
    for cell in (Cell(n, seed, options.replicates) for seed in options.seeds for n in options.sizes):
        if cell.name not in found["cells"]:
            found["cells"][cell.name] = run(cell, lengths, options.arms)
            write_atomically(options.out, (json.dumps(found) + "\n").encode())
            print(cell.name, f"{found['cells'][cell.name]['seconds']:.0f} s", flush=True)
    print(table(found))


if __name__ == "__main__":
    main()
