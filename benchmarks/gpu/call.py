"""What a GPU shows in a few minutes; the next call goes on where this one stops. See README.md beside this file.

python -m benchmarks.gpu --minutes 9 --data FOLDER --weights FOLDER --out FOLDER [--from FOLDER]
python -m benchmarks.gpu --device cpu --limit 512 --epochs 0.5 --data FOLDER --out FOLDER    # its stand-in, small
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from benchmarks.gpu.ahead import prepare
from benchmarks.gpu.cells import NETWORKS, SEEDS, SHARES, WAYS, Cell
from benchmarks.gpu.clock import Clock, end_the_process_in
from benchmarks.gpu.jobs import STAGES, Choice
from benchmarks.gpu.lab import Lab, judged_halves
from benchmarks.gpu.run import DeviceLost, work
from benchmarks.gpu.store import Store

from amsc.errors import AmscError, ModelError
from amsc.measurement import machine_stamp

__all__ = ["main"]

LEFT_OVER = 20.0
"""Seconds at the end that no work is planned for."""
HARD_END = 5.0
"""Seconds before the end at which the process stops whatever it is doing."""
UNUSABLE = 2


def main(arguments: Sequence[str] | None = None, *, start: float | None = None) -> int:
    options = options_of(arguments)
    start, seconds = time.monotonic() if start is None else start, 60 * options.minutes
    clock = Clock(max(0.0, seconds - LEFT_OVER), start)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("there is no CUDA device; --device cpu --limit 512 --epochs 0.5 tries all of it, small", file=sys.stderr)
        return UNUSABLE
    try:
        lab = opened(options, clock)
        if options.prepare is not None:
            print(f"{prepare(lab, choice_of(options), options.prepare)} networks are cut ahead, in {options.ahead}")
            return 0
    except (AmscError, torch.OutOfMemoryError) as error:
        print(error, file=sys.stderr)
        return UNUSABLE
    watch = end_the_process_in(start + seconds - HARD_END - time.monotonic(), lab.store.close)
    try:
        lab.store.begin_call({**machine_stamp(), "minutes": options.minutes})
        done = work(lab, choice_of(options))
    except DeviceLost as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        watch.cancel()
    print(f"{done} results more, {len(lab.store.results)} in all, in {lab.store.path}")
    return 0


def opened(options: argparse.Namespace, clock: Clock) -> Lab:
    """Data, networks and earlier results.

    Raises:
        AmscError: one of them cannot be used.
    """
    device, batch = torch.device(options.device), options.batch or batch_for(options.limit)
    data = judged_halves(options.data, batch=batch, device=device, limit=options.limit)
    setup = {"data": data.name, "train": data.num_examples("train"), "test": data.num_examples("test")}
    schedule = {"epochs": options.epochs, "batch": batch}
    store = Store(options.out, {**setup, **schedule}, earlier=options.earlier, ahead=options.ahead)
    lab = Lab(data, device, options.weights, options.epochs, batch, clock, store)
    check(lab, options.networks)
    if options.retry:
        store.forget_failures()
    return lab


def choice_of(options: argparse.Namespace) -> Choice:
    return Choice(options.stages, options.networks, options.ways, options.shares, options.seeds)


def check(lab: Lab, networks: Sequence[str]) -> None:
    """Refuse a folder of weights without any, and results without the networks that they are about.

    Raises:
        ModelError, StoreError: so it is.
    """
    if lab.weights and not any(lab.weights_of(network) for network in networks):
        raise ModelError(
            f"{lab.weights} has no weights of {' or '.join(networks)} (files such as resnet56-*.th); name another "
            "folder, or leave --weights out and train from the beginning"
        )
    for cell in (Cell(network, "dense", 1.0, 0, lab.epochs, lab.batch) for network in networks):
        if lab.store.good(cell.name):
            lab.store.dense(cell.network)


def batch_for(limit: int | None) -> int:
    """512, or with few examples so many that an epoch has some steps."""
    return 512 if limit is None else max(2, min(512, limit // 8))


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--weights", type=Path, help="folder with resnet56-*.th and others; without: untrained")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results; gone on with")
    parser.add_argument("--from", type=Path, dest="earlier", help="folder that the call before left, if not in --out")
    parser.add_argument("--ahead", type=Path, help="folder of networks that were cut ahead")
    parser.add_argument("--prepare", type=int, metavar="N", help="only cut N networks ahead, into --ahead")
    parser.add_argument("--minutes", type=float, default=9.0, help="when all must be over")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--epochs", type=float, default=160.0, help="of every cell")
    parser.add_argument("--batch", type=int, help="512, with --limit an eighth of it")
    parser.add_argument("--limit", type=int, help="examples of each split, for a trial")
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=STAGES)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--shares", nargs="+", type=float, default=list(SHARES), choices=SHARES)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--retry", action="store_true", help="try again what failed")
    options = parser.parse_args(arguments)
    if options.prepare is not None and options.ahead is None:
        parser.error("--prepare cuts networks into the folder --ahead; name it")
    return options
