"""Runs that are stopped, damaged and gone on with at random, until the time is over: nothing may be lost or differ.

    python benchmarks/soak/soak.py [--minutes 30] [--faults 1000] [--seed 0] [--name soak]

Of each job one run is left alone. Others are started and struck at a random moment: killed (SIGKILL),
asked to end (SIGTERM, Ctrl-C), killed and its newest state damaged (bits turned over, cut off, removed, a piece of the
search log torn off), or run until its disk is full: root gives it a tmpfs with little room left, others a limit on
the size of its files. Then it is resumed, until it ends. Its record must be that of the run that was left alone, but
for the times, and so must the bytes of its model, and no file may be missing. Result: benchmarks/results/NAME.json.
"""

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from amsc.cli import compress as _compress  # noqa: F401 - so that a child, which is forked, need not import torch
from amsc.cli import main as amsc
from amsc.cli import resume as _resume  # noqa: F401
from amsc.measurement import machine_stamp

MODEL = "soak:network"
JOB = ["compress", MODEL, "--data", "digits", "--target", "macs=60%", "--quiet", "--threads", "1", "--limit", "400"]
JOB += ["--precision", "float32", "--reconstruction", "64"]
TRAINED = ["--dense-epochs", "3", "--path-epochs", "2", "--path-points", "4", "--depth-rule", "share"]
JOBS = {
    "path": [*JOB, *TRAINED, "--finetune-epochs", "4"],
    "search": [*JOB, "--dense-epochs", "4", "--path-points", "2", "--finetune-epochs", "4"],
}
TIMES = ("seconds", "latency_seconds", "latency_spread_seconds", "peak_memory_bytes", "date")
SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "Ctrl-C": signal.SIGINT}
CODES = {"SIGKILL": -9, "SIGTERM": 143, "Ctrl-C": 130}
FULL_DISK_CODE = 8
SOON = 10.0
"""Seconds within which a run that is asked to end does so, on a busy machine."""
ROOMY = "size=512m"
FAULTS = ("SIGKILL", "SIGTERM", "Ctrl-C", "damaged state", "torn search log", "full disk")


class Block(nn.Module):
    """A convolution that is added to its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.last = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.last(self.norm(self.conv(x)).relu())
        return out


def network() -> nn.Module:
    """A small network, so that most of the time is not spent on numbers."""
    blocks = (Block(16) for _ in range(4))
    return nn.Sequential(nn.Conv2d(1, 16, 3), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


@dataclass
class Tally:
    """What happened."""

    faults: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    different: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    wrong_ends: list[str] = field(default_factory=list)
    ended_before: int = 0


def untimed(value: Any) -> Any:
    """A record without what a clock or the allocator decides."""
    if isinstance(value, dict):
        return {key: untimed(inner) for key, inner in value.items() if key not in TIMES}
    return [untimed(inner) for inner in value] if isinstance(value, list) else value


def record(folder: Path) -> Any:
    return untimed(json.loads((folder / "record.json").read_text()))


def files(folder: Path) -> set[str]:
    """The files of a run by name, but for those that only a run that was gone on with has."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if not Path(name).name.startswith(".")}


def started(words: list[str], log: Path, *, most_bytes: int | None = None) -> int:
    """A child that runs a command, with words in `log`; no file of it may have more than `most_bytes`."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        if most_bytes is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
        with log.open("a") as said, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = amsc(words)
    except BaseException as error:
        log.with_suffix(".crash").write_text(repr(error))
    os._exit(code)


class Disk:
    """Where runs are: a tmpfs for root, so that it can be filled, and else any folder."""

    def __init__(self, place: Path) -> None:
        self.place, self.is_own = place / "disk", os.geteuid() == 0
        self.place.mkdir(parents=True, exist_ok=True)
        if self.is_own:
            subprocess.run(["mount", "-t", "tmpfs", "-o", ROOMY, "tmpfs", str(self.place)], check=True)

    def filled(self, words: list[str], log: Path, chance: random.Random) -> int:
        """The exit code of a command that runs until there is no room any more."""
        left = chance.randrange(1_000, 600_000)
        if not self.is_own:
            return end_of(started(words, log, most_bytes=left))
        full = shutil.disk_usage(self.place).used + left
        self._mount(f"size={full // 1024}k")
        try:
            return end_of(started(words, log))
        finally:
            self._mount(ROOMY)

    def close(self) -> None:
        """Give the memory back."""
        if self.is_own:
            subprocess.run(["umount", str(self.place)], check=True)

    def _mount(self, size: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{size}", str(self.place)], check=True)


def end_of(child: int) -> int:
    """The exit code of a child, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def log_of(folder: Path) -> Path:
    """What a run says; not on its own disk, which may be full."""
    return folder.parents[1] / f"{folder.name}.log"


def alive_after(child: int, seconds: float) -> bool:
    """Whether it still runs then; if not, it is left to `end_of`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return False
        time.sleep(0.01)
    return True


def damaged(folder: Path, chance: random.Random) -> bool:
    """Damage the newest state, if another is kept; whether that was possible."""
    state = folder / "state" / "state.pt"
    if not (state.is_file() and (folder / "state" / "state.before.pt").is_file()):
        return False
    content = bytearray(state.read_bytes())
    way = chance.choice(("cut off", "turned over", "removed", "empty"))
    if way == "removed":
        state.unlink()
        return True
    if way == "turned over":
        content[chance.randrange(len(content) - 80)] ^= 1 << chance.randrange(8)
    state.unlink()  # it may have a second name
    state.write_bytes(b"" if way == "empty" else content if way == "turned over" else content[: len(content) // 2])
    return True


def torn(folder: Path, chance: random.Random) -> bool:
    """Cut off the end of the search log; whether there is one."""
    log = folder / "state" / "search.jsonl"
    if not log.is_file():
        return False
    content = log.read_bytes()
    log.write_bytes(content[: chance.randrange(max(1, len(content)))])
    return True


AFTER: dict[str, Callable[[Path, random.Random], bool]] = {"damaged state": damaged, "torn search log": torn}


def struck(
    words: list[str], folder: Path, fault: str, seconds: float, chance: random.Random, tally: Tally, disk: Disk
) -> None:
    """Start or resume the run in `folder`, and let `fault` come over it."""
    log = log_of(folder)
    if fault == "full disk":
        code = disk.filled(words, log, chance)
        tally.faults[fault] += code == FULL_DISK_CODE
        if code not in (0, FULL_DISK_CODE):
            tally.wrong_ends.append(f"{fault}: exit code {code}")
        return
    kind = fault if fault in SIGNALS else "SIGKILL"
    child = started(words, log)
    if not alive_after(child, seconds):
        tally.ended_before += 1
        if (code := end_of(child)) != 0:
            tally.wrong_ends.append(f"before {fault}: exit code {code}")
        return
    os.kill(child, SIGNALS[kind])
    signalled = time.monotonic()
    code, taken = end_of(child), time.monotonic() - signalled
    if code not in (CODES[kind], 0):
        tally.wrong_ends.append(f"{fault}: exit code {code}")
    if code == 0:  # it may have been at its end; but not if it went on for long
        tally.ended_before += 1
        if taken > SOON:
            tally.wrong_ends.append(f"{fault}: not heard for {taken:.0f} s")
        return
    if fault not in AFTER or AFTER[fault](folder, chance):
        tally.faults[fault] += 1
    else:
        tally.faults["SIGKILL"] += 1


def disturbed(
    job: list[str], folder: Path, chance: random.Random, pace: float, tally: Tally, disk: Disk, most: int
) -> None:
    """A run that is struck until it ends."""
    fresh, again = [*job, "--out", str(folder)], ["resume", str(folder), "--quiet", "--model", MODEL]
    for _ in range(100):
        words = again if list(folder.glob("state/state*.pt")) else fresh
        if sum(tally.faults.values()) >= most:
            if (code := end_of(started(words, log_of(folder)))) != 0:
                tally.wrong_ends.append(f"at the end: exit code {code}")
            return
        struck(words, folder, chance.choice(FAULTS), chance.uniform(0.1, pace), chance, tally, disk)
        if (folder / "record.json").is_file() and (folder / "report.html").is_file():
            if (code := end_of(started(again, log_of(folder)))) != 0:
                tally.wrong_ends.append(f"of a run that had ended: exit code {code}")
            return
    if (code := end_of(started(again, log_of(folder)))) != 0:
        tally.wrong_ends.append(f"after a hundred faults: exit code {code}")


def compared(calm: Path, folder: Path, name: str, tally: Tally) -> bool:
    """Whether the run ended as the calm one did."""
    tally.runs += 1
    missing = files(calm) - files(folder)
    if missing:
        tally.lost.append(f"{name}: {sorted(missing)}")
        return False
    same = record(calm) == record(folder)
    weights = "model/model.safetensors"
    same &= (calm / weights).read_bytes() == (folder / weights).read_bytes()
    if not same:
        tally.different.append(name)
    return same


def soak(options: argparse.Namespace, disk: Disk) -> Tally:
    tally, chance, pace = Tally(), random.Random(options.seed), {}
    for name, job in JOBS.items():
        start, calm = time.monotonic(), disk.place / name
        assert end_of(started([*job, "--out", str(calm)], log_of(calm))) == 0, "the calm run failed"
        pace[name] = 0.9 * (time.monotonic() - start)
    end = time.monotonic() + 60 * options.minutes
    while time.monotonic() < end and sum(tally.faults.values()) < options.faults:
        name = chance.choice(tuple(JOBS))
        folder = disk.place / f"run-{tally.runs}"
        disturbed(JOBS[name], folder, chance, pace[name], tally, disk, options.faults)
        if not compared(disk.place / name, folder, f"run {tally.runs}, {name}", tally) and options.keep:
            shutil.copytree(folder, options.keep / folder.name)
        shutil.rmtree(folder, ignore_errors=True)
        print(dict(tally.faults), tally.runs, "runs,", tally.different, tally.lost, tally.wrong_ends[-5:], flush=True)
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--faults", type=int, default=1_000_000, help="stop after so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="soak", help="of the file with the result")
    parser.add_argument("--keep", type=Path, help="work in this folder, and keep what differs")
    options = parser.parse_args()
    os.chdir(Path(__file__).parent)  # where the network is found by its name
    start = time.monotonic()
    with contextlib.ExitStack() as stack:
        place = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        disk = Disk(place)
        stack.callback(disk.close)
        tally = soak(options, disk)
    result = {
        "minutes": round((time.monotonic() - start) / 60, 1),
        "faults": dict(tally.faults),
        "faults_in_all": sum(tally.faults.values()),
        "ended_before_the_fault": tally.ended_before,
        "runs_that_ended": tally.runs,
        "different_records": tally.different,
        "lost_files": tally.lost,
        "unexpected_exit_codes": tally.wrong_ends,
        "seed": options.seed,
        "machine": dict(machine_stamp()),
    }
    out = Path(__file__).parents[1] / "results" / f"{options.name}.json"
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return 1 if tally.different or tally.lost or tally.wrong_ends else 0


if __name__ == "__main__":
    raise SystemExit(main())
