"""What a measurement was made on, in words; nothing that identifies the machine or its owner."""

import os
import platform
from pathlib import Path

import torch

__all__ = ["machine_stamp"]


def machine_stamp() -> dict[str, str]:
    """Processor, threads in use, operating system, versions, and the GPU if there is one.

    Keys: cpu, cores, threads, platform, python, torch; with a GPU also gpu and cuda."""
    stamp = {
        "cpu": _cpu_model(),
        "cores": str(os.cpu_count() or "unknown"),
        "threads": str(torch.get_num_threads()),
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if torch.cuda.is_available():
        stamp |= {"gpu": torch.cuda.get_device_name(), "cuda": str(torch.version.cuda or torch.version.hip)}
    return stamp


def _cpu_model() -> str:
    """The processor's name as Linux gives it; elsewhere what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.lower().startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
