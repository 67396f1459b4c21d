"""From a model to a smaller one, in seconds and bytes, beside Torch-Pruning.

    python benchmarks/surgery/bench_surgery.py

Half of the channels of torchvision's networks go (1 x 3 x 224 x 224, one thread). amsc: trace, plan, cut, with half of
every exact group; its verification and trial cut are timed apart. amsc-width: the same without looking for removable
blocks, which the other side does not do. Torch-Pruning: build (dependency graph and pruner), step, with half
of every layer but the last. Every (tool, network) runs in a fresh process that imports first and is then timed once;
the tools take turns. A process that meets the time or address-space limit counts as one that has no end, and is not
tried again. Memory is the highest resident set after the work less what the process held before it.

Needs torchvision, and Torch-Pruning for the other side; `--python` names an interpreter that has them.
Result: benchmarks/results/surgery.json.
"""

import argparse
import contextlib
import functools
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

HERE = Path(__file__).parent
MODELS = ("resnet50", "densenet121", "densenet201", "vgg16_bn", "vit_b_16", "swin_t", "convnext_tiny")
# Their forward computes sizes of the attention from the width of the stream: which groups can go is tried first.
ON_TRIAL = ("swin_t",)
TOOLS = ("amsc", "amsc-width", "torch-pruning")
GIB = 1 << 30
MIB = 1 << 20

Seconds = dict[str, float]


def open_torchvision(name: str) -> nn.Module:
    """A torchvision classifier; its C++ operators, which no classifier needs, are declared if they cannot be loaded."""
    library = torch.library.Library("torchvision", "DEF")
    with contextlib.suppress(RuntimeError):
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from torchvision import models

    torch.manual_seed(0)
    model: nn.Module = models.get_model(name, weights=None).eval()
    return model


# -- in a process of its own -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def timed(seconds: Seconds, stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start


def with_amsc(
    model: nn.Module, inputs: Tensor, *, blocks: bool = True, on_trial: bool = False
) -> tuple[nn.Module, Seconds, Callable[[], dict[str, Any]]]:
    """The cut model, seconds by stage, and what to check afterwards; the trial cut is a check as well."""
    from amsc.errors import AmscError
    from amsc.structure import trace
    from amsc.surgery import apply_plan, cuttable, plan_cut, verify

    seconds: Seconds = {}
    checks: Seconds = {}
    with timed(seconds, "trace"):
        structure = trace(model, inputs, blocks=blocks)
    traced = memory("VmHWM")
    if on_trial:
        with timed(checks, "trial"):
            structure = cuttable(model, structure, inputs)
        forget_peak()
    with timed(seconds, "plan"):
        halves = {g.name: range(g.size // 2) for g in structure.channels if g.exact and g.size > 1}
        plan = plan_cut(structure, channels=halves)
    with timed(seconds, "cut"):
        small = apply_plan(model, plan)

    peak = max(traced, memory("VmHWM"))

    def proof() -> dict[str, Any]:
        start = time.perf_counter()
        try:
            outcome: dict[str, Any] = {"difference": verify(model, small, plan, inputs)}
        except AmscError as error:
            outcome = {"verification": str(error)[:300]}
        verify_seconds = time.perf_counter() - start
        apart = {"verify_seconds": verify_seconds, "peak": peak}
        apart |= {f"{stage}_seconds": value for stage, value in checks.items()}
        return outcome | {"groups": len(halves)} | apart

    return small, seconds, proof


def with_torch_pruning(model: nn.Module, inputs: Tensor) -> tuple[nn.Module, Seconds, Callable[[], dict[str, Any]]]:
    """The pruned model (the same object), seconds by stage, and nothing to check: it has no check of its own."""
    import torch_pruning

    classifier = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    seconds: Seconds = {}
    with timed(seconds, "build"):
        pruner = torch_pruning.pruner.MetaPruner(
            model,
            inputs,
            importance=torch_pruning.importance.MagnitudeImportance(p=2),
            global_pruning=False,
            pruning_ratio=0.5,
            ignored_layers=[classifier],
        )
    with timed(seconds, "step"):
        pruner.step()
    return model, seconds, dict


def measure_here(tool: str, name: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    model, inputs = open_torchvision(name), torch.randn(1, 3, 224, 224)
    __import__("torch_pruning" if tool == "torch-pruning" else "amsc.surgery")
    before = size_of(model)
    forget_peak()
    start = memory("VmRSS")
    ours = functools.partial(with_amsc, on_trial=name in ON_TRIAL)
    tools = {"amsc": ours, "amsc-width": functools.partial(ours, blocks=False), "torch-pruning": with_torch_pruning}
    small, seconds, check = tools[tool](model, inputs)
    peak = memory("VmHWM")
    checked = check()
    peak = checked.pop("peak", peak)
    return {
        "seconds": {"total": sum(seconds.values())} | seconds,
        "added_peak_mib": (peak - start) / MIB,
        "peak_mib": peak / MIB,
        "parameters_left": size_of(small) / before,
        "macs": macs_or_why_not(small, inputs),
        **checked,
    }


def size_of(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def macs_or_why_not(model: nn.Module, inputs: Tensor) -> int | str:
    """Multiply-adds of the pruned model, or the error with which it fails to run."""
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.eval()(inputs)
    except Exception as error:  # whatever a broken network raises
        return f"{type(error).__name__}: {error}"[:200]
    return int(counter.get_total_flops()) // 2


def memory(key: str) -> int:
    """A line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) * 1024


def forget_peak() -> None:
    """The highest resident set counts from here on, where the system allows it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


# -- all of them -------------------------------------------------------------------------------------------------------


def run_apart(python: str, tool: str, name: str, timeout: float, gib: int) -> dict[str, Any]:
    """What one process says, or {"ended": why not}."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (gib * GIB, gib * GIB))

    source = os.pathsep.join([str(HERE.parents[1] / "src"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [python, __file__, "--here", tool, name]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, env=environment, preexec_fn=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return {"ended": f"no end in {timeout:g} s"}
    if done.returncode == 0:
        return dict(json.loads(done.stdout.splitlines()[-1]))
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:200]
    out_of_memory = "MemoryError" in done.stderr or "can't allocate memory" in done.stderr or done.returncode == -9
    return {"ended": f"no end in {gib} GiB" if out_of_memory else last}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the runs with lowest and highest; the first run that did not end, if one did not."""
    for run in runs:
        if "ended" in run:
            return {"ended": run["ended"]}
    stages = runs[0]["seconds"]
    spread = {stage: [run["seconds"][stage] for run in runs] for stage in stages}
    apart = [key for key in ("trial_seconds", "verify_seconds") if key in runs[0]]
    kept = ("parameters_left", "macs", "groups", "difference", "verification")
    return {
        "runs": len(runs),
        "seconds": {stage: round(statistics.median(values), 4) for stage, values in spread.items()},
        "seconds_range": [round(min(spread["total"]), 4), round(max(spread["total"]), 4)],
        **{key: round(statistics.median(run[key] for run in runs), 4) for key in apart},
        "added_peak_mib": round(statistics.median(run["added_peak_mib"] for run in runs), 1),
        "peak_mib": round(statistics.median(run["peak_mib"] for run in runs), 1),
        **{key: runs[0][key] for key in kept if key in runs[0]},
    }


def row(name: str, tool: str, result: dict[str, Any]) -> str:
    if "ended" in result:
        return f"{name:14}{tool:15}{result['ended']}"
    stages = ", ".join(f"{stage} {value:.3f}" for stage, value in result["seconds"].items() if stage != "total")
    low, high = result["seconds_range"]
    runs = f"{result['macs'] / 1e9:.2f} G macs" if isinstance(result["macs"], int) else f"BROKEN: {result['macs']}"
    checks = [f", {key} {result[f'{key}_seconds']:.2f} s" for key in ("trial", "verify") if f"{key}_seconds" in result]
    verified = "".join(checks)
    wrong = f" NOT VERIFIED: {result['verification'][:80]}" if "verification" in result else ""
    return (
        f"{name:14}{tool:15}{result['seconds']['total']:7.3f} s ({low:.3f}-{high:.3f}; {stages}{verified})"
        f" +{result['added_peak_mib']:.0f} MiB (peak {result['peak_mib']:.0f})"
        f" {result['parameters_left']:.1%} of parameters, {runs}{wrong}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS, help="names of torchvision models")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--python", default=sys.executable, help="interpreter with torchvision and torch-pruning")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for a process, imports and all")
    parser.add_argument("--gib", type=int, default=16, help="address space of a process")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results" / "surgery.json")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure_here(*options.models)))
        return 0
    versions = versions_of(options.python)
    tools = [tool for tool in TOOLS if tool in versions]
    if "torchvision" not in versions or len(tools) < len(TOOLS):
        print(f"{options.python} has only {', '.join(versions)}; this benchmark needs torchvision and torch-pruning")
        return 0
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {(name, tool): [] for name in options.models for tool in tools}
    for _ in range(options.repeats):
        for (name, tool), done in runs.items():
            if not any("ended" in run for run in done):
                done.append(run_apart(options.python, tool, name, options.timeout, options.gib))
    results: dict[str, dict[str, Any]] = {}
    for (name, tool), done in runs.items():
        results.setdefault(name, {})[tool] = summary(done)
        print(row(name, tool, results[name][tool]), flush=True)
    from amsc.measurement import machine_stamp

    limits = {"seconds": options.timeout, "address_space_gib": options.gib}
    record = {"limits": limits, "results": results, "versions": versions, "machine": dict(machine_stamp())}
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    return 0


def versions_of(python: str) -> dict[str, str]:
    """Versions of what the interpreter has of both tools and torchvision; amsc is this checkout."""
    code = (
        "import json; from importlib.metadata import distributions;"
        "print(json.dumps({d.name.lower(): d.version for d in distributions()}))"
    )
    found = json.loads(subprocess.check_output([python, "-c", code]))
    listed = {name: found[name] for name in ("torch", "torchvision", "torch-pruning") if name in found}
    return {"amsc": "this checkout", "amsc-width": "this checkout"} | listed


if __name__ == "__main__":
    raise SystemExit(main())
