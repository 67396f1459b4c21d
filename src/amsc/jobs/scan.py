"""The frontier in a minute, without training: what could go for every budget, and what that is predicted to cost."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

from torch import nn

from amsc.data import Data
from amsc.errors import TargetError
from amsc.jobs.checks import check_data, check_listener
from amsc.jobs.listening import Heard, listener_of
from amsc.jobs.preparation import removable, threads_and_determinism
from amsc.jobs.processes import together
from amsc.jobs.scan_look import Look, LossCheck
from amsc.jobs.scan_request import ScanRequest, checked_share
from amsc.jobs.stages.job import recovery_of
from amsc.jobs.stages.record import versions
from amsc.measurement import machine_stamp
from amsc.penalty import Coordinates
from amsc.progress import NoProgress
from amsc.records import ScanPoint, ScanRecord, to_json
from amsc.report import frontier_page, render_scan
from amsc.settings import Settings
from amsc.storage import write_atomically
from amsc.structure import Structure
from amsc.structure.costing import predicted_macs, predicted_parameters
from amsc.structure.cutting import after_removal
from amsc.surgery import plan_cut, stand_in
from amsc.tasks import Task
from amsc.training import (
    GateChoice,
    GateGradients,
    Remainders,
    Removal,
    choose_gates,
    find_gates,
    gate_derivatives,
    num_channels,
)
from amsc.words.page import Page
from amsc.words.shown import Shown

__all__ = ["SHARES", "RemovalArguments", "Scan", "scan"]

SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
EXAMPLES = 512
SIGNIFICANT = 3
"""Standard errors by which a predicted increase must be below zero not to be taken for chance."""


class RemovalArguments(TypedDict):
    """What goes, as `plan_cut` takes it."""

    channels: dict[str, tuple[int, ...]]
    blocks: tuple[str, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Scan(Shown):
    """The frontier of a network that nothing has been trained for.

    `record` is all of it as plain data (JSON by `to_json`), its `points` go from the dense network down;
    `structure` is what may go, `choice` finds what goes for a budget.
    """

    record: ScanRecord
    structure: Structure
    choice: GateChoice

    @property
    def points(self) -> tuple[ScanPoint, ...]:
        """The frontier: the dense network, then one for each share that can be reached. With fewer MACs no smaller loss
        is predicted: where a smaller network would lose less, the shares above have it too."""
        return self.record.points

    def removal(self, *, macs: float) -> RemovalArguments:
        """What goes so that this share of the MACs or a little less is left, for `plan_cut`.

            small = amsc.cut(model, amsc.plan_cut(scan.structure, **scan.removal(macs=0.5)))

        Raises:
            TargetError: the share is not between 0 and 1, or cannot be reached.
        """
        removal = _removal(self.choice, macs)
        return {"channels": dict(removal.channels), "blocks": removal.blocks}

    def report(self, path: str | Path) -> None:
        """Write the frontier as one self-contained HTML file.

        Raises:
            RunFolderError: it cannot be written.
        """
        write_atomically(Path(path), render_scan(self.record).encode())

    def page(self) -> Page:
        """The frontier as a table."""
        return frontier_page(self.record)

    def in_a_line(self) -> str:
        """What was scanned, and how far down the frontier goes."""
        record = self.record
        lowest = min(point.macs for point in record.points) / record.points[0].macs
        return f"{record.model} on {record.data}, {len(record.points)} points down to {lowest:.0%} of the macs"

    def to_json(self, *, indent: int | None = None) -> str:
        """The record as JSON text."""
        return to_json(self.record, indent=indent)


def scan(
    model: nn.Module,
    example_inputs: Any,
    data: Data,
    *,
    task: Task | None = None,
    settings: Settings | None = None,
    examples: int = EXAMPLES,
    power: float = 1.0,
    dimensions: str = "both",
    shares: Sequence[float] = SHARES,
    evaluate: bool = False,
    latency: bool = False,
    reconstruct: bool = False,
    model_name: str = "",
    progress: Heard = None,
) -> Scan:
    """What could go from a trained network for every budget, from one look at some training examples.

    Every removable block and channel gets a gate between 0 and 1. From the derivatives of each example's loss by all
    gates at 1, the path of the adaptive group lasso near the trained network is solved to the end: blocks alone first,
    then the channels of what they leave (`amsc.penalty.gate_path` has the problem), in the order of what they cost once
    `amsc.reconstruct` has given back what it can (`settings.prices`). Each network proposed is then run as it is cut
    (see `ScanPoint`). Nothing is trained, and `model` comes back as it was.

        small = cut(model, plan_cut(found.structure, **found.removal(macs=0.5)))

    Args:
        example_inputs: a tensor, or a tuple or dict of arguments, for which MACs and latency are counted.
        task: loss and score; classification if None. `Imitation()` compares with `model` and needs no labels.
        settings: `currency`, `depth_share`, `prices`, `reconstruction` (with 0 prices are "fisher") and its `seed`,
            what may go (`streams`, `plain`, `keep`, `only`, `round_to`, `min_channels`, `minimum`), `device`, `threads`
            and `deterministic` are used.
        examples: how many training examples are looked at.
        power: a gate's weight is its size in the currency to this power: with 1 the penalty is the expected cost of
            what is left, 0.5 is the square root of AMSC.
        dimensions: "both", "depth" (blocks only) or "width" (channels only).
        shares: of the MACs, for which structures are proposed; the record names those out of reach.
        evaluate: give the score of each on validation: as cut, with BatchNorm estimated anew, and reconstructed.
        latency: time each on the example inputs.
        reconstruct: give the loss of each after `amsc.reconstruct` as well, which takes several times as long as all
            else; `evaluate` does it too. With `settings.reconstruction` 0 neither does.
        model_name: what the record calls the model; its class if empty.
        progress: hears how far the work is; True shows it on standard error, None does so where that is a terminal or
            a notebook, and else writes it to the log "amsc" at level INFO; False never.

    Raises:
        TargetError: nothing can be removed, or no share can be reached.
        SettingsError: a setting or argument is impossible.
        ModelError, InputError, DataError: model, example inputs and data do not fit each other.
        TrainingError: the loss is not finite.
        VerificationError: a cut network differs from the masked one.
    """
    wanted = ScanRequest(
        model, example_inputs, data, examples, power, dimensions, shares, evaluate, latency, reconstruct
    )
    check_listener(progress)
    ready = wanted.checked(task, settings, NoProgress(), model_name)
    with together(model, data, ready.settings), listener_of(progress) as listener:
        return _scanned(replace(ready, progress=listener))


def _scanned(wanted: ScanRequest) -> Scan:
    model, clock = wanted.model, _Clock()
    with threads_and_determinism(wanted.settings):
        wanted.progress.update("prepare", 0, 1)
        structure, coordinates = _gated(wanted)
        clock.lap("trace")
        found = gate_derivatives(
            model,
            structure,
            coordinates,
            wanted.data,
            wanted.task,
            stand_in=stand_in,
            examples=wanted.examples,
            progress=wanted.progress,
        )
        clock.lap("derivatives")
        remainders = _remainders(wanted, structure, coordinates)
        clock.lap("prices")
        choice = _chosen(wanted, structure, coordinates, found, remainders)
        check = LossCheck.of(model, structure, wanted.data, wanted.task, can_split=found.is_batched)
        points = _frontier(wanted, choice, check)
        clock.lap("path")
        points = Look(wanted, structure, check).at_all(points)
        clock.lap("looking")
    return Scan(_record(wanted, choice, points, clock.seconds), structure, choice)


def _record(
    wanted: ScanRequest, choice: GateChoice, points: tuple[ScanPoint, ...], seconds: dict[str, float]
) -> ScanRecord:
    settings = wanted.settings
    return ScanRecord(
        model=wanted.name,
        data=wanted.data.name,
        dimensions=choice.dimensions,
        currency="params" if settings.currency == "params" else "macs",
        power=float(wanted.power),
        depth_share=settings.depth_share,
        examples=len(choice.found.gradients),
        is_batched=choice.found.is_batched,
        score_name=wanted.task.name,
        points=points,
        versions=versions(),
        machine=machine_stamp(),
        seconds=seconds,
        out_of_reach=_out_of_reach(choice, wanted.shares),
        lowest_share=choice.lowest / predicted_macs(choice.structure),
        prices=settings.prices if settings.reconstruction else "fisher",
        unproven=_unproven(choice.structure, points),
    )


def _gated(wanted: ScanRequest) -> tuple[Structure, Coordinates]:
    """What may go, and the coordinates of the gates (see `find_gates`), once the data are known to fit the network.

    Raises:
        TargetError: there is no gate.
        ModelError, DataError: see `check_data`.
    """
    model, settings, inputs = wanted.model, wanted.settings, wanted.example_inputs
    found = find_gates(removable(model, inputs, settings), model, streams=settings.with_streams)
    splits = ("train", "validation") if wanted.evaluate else ("train",)
    check_data(model, wanted.data, wanted.task, inputs, splits)
    return found


def _remainders(wanted: ScanRequest, structure: Structure, coordinates: Coordinates) -> Remainders:
    """What is left of the prices of channels once reconstruction has made up for them; empty where it is not to."""
    recovery = recovery_of(wanted.settings, wanted.data)
    if recovery is None or wanted.dimensions == "depth":
        return {}
    return recovery(wanted.model, structure, {name for name, _ in coordinates.channels})


def _chosen(
    wanted: ScanRequest,
    structure: Structure,
    coordinates: Coordinates,
    found: GateGradients,
    remainders: Remainders,
) -> GateChoice:
    """What goes for any cost, as the settings want it."""
    settings = wanted.settings
    return choose_gates(
        structure,
        coordinates,
        found,
        currency=settings.currency,
        power=wanted.power,
        dimensions=wanted.dimensions,
        depth_share=settings.depth_share,
        rounding=settings.rounding(structure),
        remainders=remainders,
    )


def _unproven(structure: Structure, points: tuple[ScanPoint, ...]) -> dict[str, str]:
    """Why the cuts of some groups cannot be proven."""
    plans = [plan_cut(structure, channels=one.removed_channels, blocks=one.removed_blocks) for one in points]
    return {name: why for plan in plans for name, why in plan.unproven.items()}


def _removal(choice: GateChoice, share: float) -> Removal:
    wanted, dense = checked_share(share), predicted_macs(choice.structure)
    if choice.lowest > int(wanted * dense):
        lowest = -(-1000 * choice.lowest // dense) / 10
        words = {"both": "blocks and channels", "depth": "blocks alone", "width": "channels alone"}[choice.dimensions]
        raise TargetError(
            f"macs={share:.4g} cannot be reached by removing {words}; the lowest reachable share is macs={lowest:.1f}%"
        )
    return choice.removal(int(wanted * dense))


def _frontier(wanted: ScanRequest, choice: GateChoice, check: LossCheck) -> tuple[ScanPoint, ...]:
    """The dense network and a structure for each share that can be reached; one that a smaller structure beats gives
    its share to that, where the prediction for that holds."""
    shares, dense = wanted.shares, predicted_macs(choice.structure)
    point_of = partial(_point, choice, streams=wanted.settings.with_streams)
    within = [share for share in sorted(set(shares)) if int(share * dense) >= choice.lowest]
    if not within:
        _removal(choice, max(shares))  # says what the lowest is
    kept: list[ScanPoint] = []
    for share in within:
        point = check.checked(point_of(share, choice.removal(int(share * dense))))
        smaller = kept[-1] if kept else None
        if smaller and smaller.is_predicted and point.predicted_increase > smaller.predicted_increase:
            point = replace(smaller, share=share)
        kept.append(point)
    return (check.checked(point_of(1.0, Removal())), *reversed(kept))


def _point(choice: GateChoice, share: float, removal: Removal, *, streams: bool) -> ScanPoint:
    structure, channels = choice.structure, removal.channels
    left, increase = after_removal(structure, channels, removal.blocks), choice.predicted_increase(removal)
    return ScanPoint(
        share=share,
        macs=predicted_macs(structure, channels, removal.blocks),
        parameters=predicted_parameters(structure, channels, removal.blocks),
        blocks_left=len(left.outer_blocks),
        channels_left=num_channels(left, streams=streams),
        predicted_increase=max(0.0, increase),
        removed_blocks=removal.blocks,
        removed_channels=channels,
        is_beyond_model=increase < -SIGNIFICANT * choice.standard_error(removal),
    )


def _out_of_reach(choice: GateChoice, shares: Sequence[float]) -> tuple[float, ...]:
    dense = predicted_macs(choice.structure)
    return tuple(share for share in sorted(set(shares), reverse=True) if int(share * dense) < choice.lowest)


class _Clock:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """What has passed since the last lap was this stage."""
        now = time.perf_counter()
        self.seconds[stage], self._last = now - self._last, now
