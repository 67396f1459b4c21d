"""What amsc can remove from the families of transformers and timm.

    PYTHONPATH=src python benchmarks/coverage/coverage.py

Every network is random and tiny, and is tried in a process of its own (see check.py for what is tried).
Results go to OUT/rows.jsonl, one line per network, so that a run that was stopped goes on where it was; --again starts
over. The run fails if a cut was handed out that is wrong.

    python benchmarks/coverage/coverage.py --only 'hf/bert*'           # some of them
    python benchmarks/coverage/coverage.py --table docs/coverage.md    # all, and the table
"""

import argparse
import fnmatch
import importlib.metadata
import json
import multiprocessing
import resource
import sys
import time
import warnings
from datetime import date
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "src")]

from check import check  # noqa: E402
from families import NAMES, declare_torchvision  # noqa: E402
from table import markdown, summary  # noqa: E402

from amsc.measurement import machine_stamp  # noqa: E402

Row = dict[str, Any]


def main() -> int:
    options = parsed()
    names = [name for name in NAMES if fnmatch.fnmatch(name, options.only)]
    if options.list:
        print("\n".join(names))
        return 0
    file = options.out / "rows.jsonl"
    options.out.mkdir(parents=True, exist_ok=True)
    if options.again:
        file.unlink(missing_ok=True)
    rows = {row["family"]: row for row in map(json.loads, file.read_text().splitlines())} if file.exists() else {}
    torch.set_num_threads(1)
    library = declare_torchvision()
    imported_once()
    for name in names:
        if name not in rows:
            rows[name] = in_own_process(name, options)
            with file.open("a") as lines:
                lines.write(json.dumps(rows[name]) + "\n")
            print(line(rows[name]), flush=True)
    del library
    shown = [rows[name] for name in NAMES if name in rows and fnmatch.fnmatch(name, options.only)]
    print(summary(shown))
    if options.table:
        options.table.write_text(markdown(shown, stamp(options)))
    return 1 if any(row["status"] == "SILENTLY WRONG" for row in shown) else 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", metavar="GLOB", help="names, such as 'timm/*'")
    parser.add_argument("--out", type=Path, default=Path("runs/coverage"), help="where rows.jsonl lies")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write a markdown table")
    parser.add_argument("--again", action="store_true", help="forget earlier rows")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--attention", choices=("eager", "sdpa"), help="of transformers; default: as the library does")
    parser.add_argument("--seed", type=int, default=0, help="of what is removed")
    parser.add_argument("--seconds", type=float, default=120, help="limit per network")
    parser.add_argument("--gigabytes", type=float, default=8, help="address space per network")
    return parser.parse_args()


def imported_once() -> None:
    """Import both libraries before the processes are forked: it takes as long as most networks."""
    import timm  # noqa: F401
    import transformers

    transformers.logging.set_verbosity_error()


def in_own_process(name: str, options: argparse.Namespace) -> Row:
    """The row of `name`, also if the process is killed, runs out of memory or out of time: then as far as it came."""
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(name, options, sending))
    start = time.perf_counter()
    process.start()
    sending.close()
    row: Row = {"family": name, "status": "died", "stage": "start"}
    try:
        while receiving.poll(max(0.0, options.seconds - (time.perf_counter() - start))):
            row = receiving.recv()
    except EOFError:
        process.join()
        if row["status"] == "timeout":
            row |= {"status": "died", "why": f"exit code {process.exitcode} in stage {row['stage']}"}
    else:
        process.kill()
        process.join()
        row |= {"status": "timeout", "why": f"more than {options.seconds:.0f} s; the last stage was {row['stage']}"}
    return row | {"seconds": round(time.perf_counter() - start, 1)}


def child(name: str, options: argparse.Namespace, sending: Connection) -> None:
    bytes_ = int(options.gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (bytes_, bytes_))
    warnings.simplefilter("ignore")
    sending.send(check(name, sending.send, attention=options.attention, seed=options.seed))


def line(row: Row) -> str:
    counts = f"{row.get('exact', '-')} exact, {row.get('inexact', '-')} inexact, {row.get('blocks', '-')} blocks"
    share = f"{100 * row.get('removed_share', 0):.0f} % removable"
    return f"{row['family']}: {row['status']}; {counts}; {share}; {row['seconds']} s {row.get('why', '')[:160]}"


def stamp(options: argparse.Namespace) -> dict[str, str]:
    versions = {name: importlib.metadata.version(name) for name in ("transformers", "timm")}
    said = {"--attention": options.attention, "--seed": options.seed, "--only": options.only, "--table": options.table}
    words = " ".join(f"{flag} {value}" for flag, value in said.items() if value not in (None, 0, "*"))
    command = f"PYTHONPATH=src python benchmarks/coverage/coverage.py {words}"
    return {"date": str(date.today()), "command": command, **versions, **machine_stamp()}


if __name__ == "__main__":
    raise SystemExit(main())
