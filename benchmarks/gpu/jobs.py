"""All that is to be measured, in order: the tests, speed, and cells; each with what it needs to be begun."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.gpu.cells import SEEDS, SHARES, TIMED_NETWORKS, WAYS, Cell, ordered
from benchmarks.gpu.gpu_tests import run_tests
from benchmarks.gpu.lab import Lab
from benchmarks.gpu.speed import HOW, epoch_seconds, latency, limit_name, matrix_product, overhead, speed_name
from benchmarks.gpu.training import DENSE_RATE, train_cell, tuned

__all__ = ["DIMENSIONS", "STAGES", "Choice", "Job", "jobs"]

STAGES = ("tests", "speed", "cells")
DIMENSIONS = ("both", "width", "depth")
"""What the scan may take whose networks are timed."""
A_LITTLE = 10.0
"""Seconds that nearly everything takes on a GPU to be loaded and warm."""
CUT = {"compress": 90.0, "path": 60.0, "L1": 30.0, "scan": 40.0}
"""Seconds that a cut on a GPU is given where none was measured."""
ALIKE = 0.1
"""By which part of it the losses of eager and captured steps may differ."""


@dataclass(frozen=True)
class Choice:
    """Which part of all there is to do."""

    stages: Sequence[str] = STAGES
    networks: Sequence[str] = TIMED_NETWORKS
    ways: Sequence[str] = tuple(WAYS)
    shares: Sequence[float] = SHARES
    seeds: Sequence[int] = SEEDS

    def cells(self, lab: Lab, network: str) -> list[Cell]:
        """Those of a network, in order."""
        options: dict[str, Any] = {"ways": self.ways, "shares": self.shares, "seeds": self.seeds}
        return [*ordered(network, epochs=lab.epochs, batch=lab.batch, **options)]


@dataclass(frozen=True)
class Job:
    """Something to measure: `run` gives the result that is kept under `name`. It is begun if `seconds` are left, the
    results in `needs` are there and no failures, and those in `after` are there."""

    name: str
    run: Callable[[], dict[str, Any]]
    seconds: float = A_LITTLE
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


def jobs(lab: Lab, choice: Choice) -> Iterator[Job]:
    """What is to be done, in order, the cell in progress before other cells. What a job needs is decided when it is
    asked for, after those before it."""
    if "tests" in choice.stages:
        yield Job("tests", lambda: run_tests(lab.clock.left()))
    if "speed" in choice.stages:
        yield from _speed(lab, [network for network in choice.networks if network in TIMED_NETWORKS])
    if "cells" in choice.stages:
        begun = lab.store.cell_in_progress()
        for network in sorted(choice.networks, key=lambda name: not (begun or "").startswith(f"{name} ")):
            yield from _cells(lab, choice, network, begun)


def _speed(lab: Lab, networks: Sequence[str]) -> Iterator[Job]:
    yield Job(limit_name(lab), partial(matrix_product, lab))
    for network in networks:
        yield from _epochs(lab, network, lab.batch, HOW)
        yield from _epochs(lab, network, 128, ("eager", "captured"))
    for network in networks:
        yield Job(f"overhead {network}", partial(overhead, lab, network))
        for dimensions in DIMENSIONS:
            seconds = CUT["scan"] * lab.is_gpu
            yield Job(f"latency {network} {dimensions}", partial(latency, lab, network, dimensions), seconds)


def _epochs(lab: Lab, network: str, batch: int, hows: Sequence[str]) -> Iterator[Job]:
    for how in hows:
        yield Job(speed_name(network, batch, how), partial(epoch_seconds, lab, network, batch, how), 2 * A_LITTLE)


def _cells(lab: Lab, choice: Choice, network: str, begun: str | None) -> Iterator[Job]:
    yield from _epochs(lab, network, lab.batch, HOW)
    for cell in sorted(choice.cells(lab, network), key=lambda one: one.name != begun):
        seconds = _seconds_to_begin(lab, cell)
        if cell.way != "dense":
            yield Job(cell.name, partial(_train, lab, cell), seconds, (cell.dense.name,), (_tuning(network),))
            continue
        yield Job(cell.name, partial(_train, lab, cell), seconds)
        trials = CUT["L1"] * lab.is_gpu + 0.2 * lab.epochs * (_epoch(lab, cell) or 0.0)
        yield Job(_tuning(network), partial(_tune, lab, cell), trials, (cell.name,))


def _tuning(network: str) -> str:
    return f"tune {network}"


def _tune(lab: Lab, cell: Cell) -> dict[str, Any]:
    return tuned(lab, cell.network, captured=_captures(lab, cell))


def _train(lab: Lab, cell: Cell) -> dict[str, Any]:
    """A cell; where no rate could be tuned, with the dense network's."""
    tuning = lab.store.good(_tuning(cell.network))
    rate = DENSE_RATE if cell.way == "dense" or tuning is None else tuning["rate"]
    seconds, left = _epoch(lab, cell), lab.clock.left()
    if seconds is not None:
        print(f"  about {seconds * cell.epochs:.0f} s of training; {left:.0f} s are left", flush=True)
    return train_cell(lab, cell, rate=rate, captured=_captures(lab, cell))


def _captures(lab: Lab, cell: Cell) -> bool:
    """Whether captured steps were seen to work, to learn as eager ones do, and on a GPU to be faster."""
    eager, captured = (lab.store.good(speed_name(cell.network, lab.batch, how)) for how in _hows(cell))
    if eager is None or captured is None or not captured["is_captured"]:
        return False
    is_alike = abs(captured["loss"] - eager["loss"]) <= ALIKE * abs(eager["loss"])
    return is_alike and (not lab.is_gpu or captured["seconds_per_epoch"] < eager["seconds_per_epoch"])


def _hows(cell: Cell) -> tuple[str, str]:
    return ("eager, taught", "captured, taught") if cell.how.is_taught else ("eager", "captured")


def _epoch(lab: Lab, cell: Cell) -> float | None:
    """Seconds of an epoch of the dense network; of the smaller one it is no more."""
    eager, captured = (lab.store.good(speed_name(cell.network, lab.batch, how)) for how in _hows(cell))
    measured = captured if _captures(lab, cell) else eager
    return float(measured["seconds_per_epoch"]) if measured else None


def _seconds_to_begin(lab: Lab, cell: Cell) -> float:
    """What must be left for a cell to be worth beginning: the time of what cannot be divided, which is its cut, and for
    a path the path."""
    if not lab.is_gpu:
        return 0.0
    if not cell.is_cut or lab.store.cell_in_progress() == cell.name or _is_prepared(lab, cell):
        return A_LITTLE
    eager = lab.store.good(speed_name(cell.network, lab.batch, "eager"))
    walked = cell.how.walked * cell.epochs * (eager["seconds_per_epoch"] if eager else 2.0)
    seconds = max(_measured_cuts(lab, cell), default=CUT[cell.how.kind] + 1.5 * walked)
    return A_LITTLE + max(seconds, 1.2 * lab.store.not_enough(cell.name))


def _measured_cuts(lab: Lab, cell: Cell) -> list[float]:
    """Seconds that cuts of this kind took on the device."""
    made = [one for one in lab.store.results.values() if "cut_seconds" in one and not one.get("is_ahead")]
    alike = [one for one in made if (one["network"], WAYS[one["way"]].kind) == (cell.network, cell.how.kind)]
    return [one["cut_seconds"] for one in alike]


def _is_prepared(lab: Lab, cell: Cell) -> bool:
    dense = lab.store.good(cell.dense.name)
    return dense is not None and lab.store.prepared(cell.cut, lab.store.digest(cell.network)) is not None
