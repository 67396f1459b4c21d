"""The tests that need a GPU, run as they are, with their outcome as a result."""

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

__all__ = ["SECONDS", "run_tests"]

ROOT = Path(__file__).parents[2]
SECONDS = 120.0
"""The most that they may take."""
KEPT = 6000
"""Characters of their output, from the end."""


def run_tests(seconds_left: float) -> dict[str, Any]:
    """How many passed, failed and were skipped, and the end of what pytest printed.

    Only the files that name the marker are collected."""
    files = [str(file) for file in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in file.read_text()]
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", *files]
    start, limit = time.monotonic(), min(SECONDS, seconds_left)
    try:
        done = subprocess.run(command, cwd=ROOT, timeout=limit, capture_output=True, text=True, check=False)
        code, printed = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired as error:
        code, printed = None, (error.stdout or b"").decode(errors="replace")
    last = printed.strip().splitlines()[-1:] or [""]
    counts = {kind: int(number) for number, kind in re.findall(r"(\d+) (passed|failed|skipped|errors?)", last[0])}
    return {
        "exit_code": code,
        "is_cut_off": code is None,
        "counts": counts,
        "seconds": round(time.monotonic() - start, 1),
        "output": printed.replace(str(ROOT), ".")[-KEPT:],
    }
