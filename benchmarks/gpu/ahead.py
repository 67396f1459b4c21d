"""What can be cut on a machine without a GPU before a call, so that its minutes go to training."""

from benchmarks.gpu.cells import TIMED_NETWORKS
from benchmarks.gpu.jobs import DIMENSIONS, Choice
from benchmarks.gpu.lab import Lab
from benchmarks.gpu.speed import plan_ahead
from benchmarks.gpu.training import cut_ahead

from amsc.errors import TargetError

__all__ = ["prepare"]


def prepare(lab: Lab, choice: Choice, most: int) -> int:
    """Cut what is missing until there are `most` networks ahead, the most telling first; returns how many there are.

    Plans for latencies need only the given weights; a cell needs the dense network that a call has trained. Cells that
    train while they are cut are left to the GPU."""
    if "speed" in choice.stages:
        for network in (network for network in choice.networks if network in TIMED_NETWORKS):
            for dimensions in DIMENSIONS:
                plan_ahead(lab, network, dimensions)
    ready = 0
    for network in choice.networks:
        for cell in choice.cells(lab, network):
            is_done = cell.name in lab.store.results or cell.name == lab.store.cell_in_progress()
            if is_done or cell.how.kind not in ("compress", "L1") or not lab.store.good(cell.dense.name):
                continue
            if ready == most:
                return ready
            print(cell.name, flush=True)
            try:
                cut_ahead(lab, cell)
            except TargetError as error:
                print(f"  {error}", flush=True)
            else:
                ready += 1
    return ready
