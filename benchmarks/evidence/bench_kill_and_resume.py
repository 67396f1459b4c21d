"""Killing `amsc compress` at random moments and resuming gives the same record as an undisturbed run.

    python benchmarks/evidence/bench_kill_and_resume.py [--kills 3] [--seed 0]

One run is left alone; the other is killed (SIGKILL) after random times and resumed each time. Everything in the two
records must agree but the timings. Result: benchmarks/results/kill_and_resume.json.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from amsc.measurement import machine_stamp

AMSC = [sys.executable, "-m", "amsc.cli"]
JOB = ["compress", "digits_resnet", "--data", "digits", "--target", "macs=50%", "--dense-epochs", "4", "--quiet"]
JOB += ["--path-epochs", "6", "--finetune-epochs", "4", "--path-points", "6", "--depth-rule", "share", "--threads", "1"]
TIMINGS = ("seconds", "latency_seconds", "latency_spread_seconds", "peak_memory_bytes")


def untimed(value: Any) -> Any:
    """The record without what a clock or the allocator decides."""
    if isinstance(value, dict):
        return {key: untimed(inner) for key, inner in value.items() if key not in TIMINGS}
    return [untimed(inner) for inner in value] if isinstance(value, list) else value


def record(folder: Path) -> Any:
    return untimed(json.loads((folder / "record.json").read_text()))


def killed_run(folder: Path, moments: list[float]) -> list[str]:
    """Start, kill after each of the `moments`, resume; in the end let it finish. Where each kill fell."""
    command, where = [*AMSC, *JOB, "--out", str(folder)], []
    for seconds in moments:
        process = subprocess.Popen(command)
        try:
            process.wait(seconds)
            raise SystemExit("the run ended before it could be killed; use earlier moments")
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        points = folder / "path.jsonl"
        done = len(points.read_text().splitlines()) if points.exists() else 0
        where.append(f"after {seconds:.1f} s, {done} points written")
        print("killed", where[-1], flush=True)
        if (folder / "settings.toml").exists():
            command = [*AMSC, "resume", str(folder), "--quiet"]
    subprocess.run(command, check=True)
    return where


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        calm, disturbed = Path(temporary, "calm"), Path(temporary, "disturbed")
        start = time.perf_counter()
        subprocess.run([*AMSC, *JOB, "--out", str(calm)], check=True)
        duration = time.perf_counter() - start
        chooser = random.Random(options.seed)
        # Every start costs a few seconds before training begins; the sum of the moments must stay below the whole.
        moments = [chooser.uniform(0.15, 0.8) * duration / options.kills + 3 for _ in range(options.kills)]
        where = killed_run(disturbed, moments)
        same = record(calm) == record(disturbed)
    result = {"same_record": same, "kills": where, "undisturbed_seconds": round(duration, 1)}
    result["machine"] = dict(machine_stamp())
    (Path(__file__).parents[1] / "results" / "kill_and_resume.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return 0 if same else 1


if __name__ == "__main__":
    raise SystemExit(main())
