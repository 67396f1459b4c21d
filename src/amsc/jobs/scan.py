"""The frontier in a minute, without training: what could go for every budget, and what that is predicted to cost."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

from torch import nn

from amsc.data import Data
from amsc.errors import SettingsError, TargetError
from amsc.jobs.checks import check_data, check_kinds, check_listener, chosen_settings, chosen_task
from amsc.jobs.imitating import data_for
from amsc.jobs.preparation import removable, threads_and_determinism
from amsc.jobs.scan_look import Look, LossCheck
from amsc.jobs.stages.job import recovery_of
from amsc.jobs.stages.record import versions
from amsc.limits.target import Target
from amsc.measurement import machine_stamp
from amsc.penalty import Coordinates
from amsc.records import ScanPoint, ScanRecord, to_json
from amsc.report import frontier_page, render_scan
from amsc.settings import Settings
from amsc.storage import write_atomically
from amsc.structure import Structure
from amsc.structure.costing import predicted_macs, predicted_parameters
from amsc.structure.cutting import after_removal
from amsc.surgery import stand_in
from amsc.tasks import Task
from amsc.training import (
    DIMENSIONS,
    GateChoice,
    GateGradients,
    NoProgress,
    Progress,
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
    model_name: str = "",
    progress: Progress | None = None,
) -> Scan:
    """What could go from a trained network for every budget, from one look at some training examples.

    Every removable block and channel gets a gate between 0 and 1. From the derivatives of each example's loss by all
    gates at 1, the path of the adaptive group lasso near the trained network is solved to the end: blocks alone first,
    then the channels of what they leave (`amsc.penalty.gate_path` has the problem). Channels are put in order by what
    they cost once `amsc.reconstruct` has given back what it can (`settings.prices`). Nothing is trained, and `model`
    comes back as it was. A scan previews the frontier; `compress` finds a better one, by training on the way.

    What is predicted comes from the derivatives at the whole network, of which one that fits its examples has hardly
    any. So each network proposed is also run, with what goes set to zero, on some of the training examples: a point has
    this `seen_increase` of the loss beside the predicted one, and `is_far_off` where that is not to be trusted.

        found = scan(model, images[:1], data)
        print(found)
        small = cut(model, plan_cut(found.structure, **found.removal(macs=0.5)))

    Args:
        example_inputs: a tensor, or a tuple or dict of arguments, for which MACs and latency are counted.
        task: loss and score; classification if None. `amsc.tasks.Imitation()` compares with `model` and needs no
            labels.
        settings: `currency`, `depth_share`, `prices` (and for "obs" `reconstruction` examples drawn with `seed`; the
            prices are "fisher" if these are 0), what may go (`streams`, `plain`, `keep`, `only`, `round_to`,
            `min_channels`, `minimum`), `device`, `threads` and `deterministic` are used.
        examples: how many training examples are looked at.
        power: a gate's weight is its size in `settings.currency` to this power: with 1 the penalty is the expected
            cost of what is left, 0.5 is the square root of AMSC.
        dimensions: "both", "depth" (blocks only) or "width" (channels only).
        shares: of the MACs, for which structures are proposed; the record names those out of reach.
        evaluate: cut and verify each structure, and give its score on the validation split, as it is and with the
            statistics of BatchNorm estimated anew.
        latency: cut and verify each structure, and time it on the example inputs.
        model_name: what the record calls the model; its class if empty.
        progress: hears how far the work is.

    Raises:
        TargetError: nothing can be removed, or no share can be reached.
        SettingsError: a setting or argument is impossible.
        ModelError, InputError, DataError: model, example inputs and data do not fit each other.
        TrainingError: the loss is not finite.
        VerificationError: a cut network differs from the masked one.
    """
    check_listener(progress)
    settings, listener, clock = chosen_settings(settings, Settings()), progress or NoProgress(), _Clock()
    task = _checked(model, data, task, settings, examples, power, dimensions, shares)
    data = data_for(task, data, model, is_watched=True)
    with threads_and_determinism(settings):
        splits = ("train", "validation") if evaluate else ("train",)
        structure, coordinates = _gated(model, example_inputs, data, task, settings, splits)
        clock.lap("trace")
        found = gate_derivatives(
            model, structure, coordinates, data, task, stand_in=stand_in, examples=examples, progress=listener
        )
        clock.lap("derivatives")
        recovery = recovery_of(settings, data)
        groups = {name for name, _ in coordinates.channels}
        remainders = recovery(model, structure, groups) if recovery and dimensions != "depth" else {}
        clock.lap("prices")
        choice = _chosen(structure, coordinates, found, settings, power, dimensions, remainders)
        points = _frontier(choice, shares, LossCheck.of(model, structure, data, task, can_split=found.is_batched))
        clock.lap("path")
        look = Look(model, structure, example_inputs, data, task, evaluate=evaluate, latency=latency)
        points = look.at_all(points)
        clock.lap("looking")
    name = model_name or type(model).__name__
    return Scan(_record(name, data, task, settings, power, choice, shares, points, clock.seconds), structure, choice)


def _record(
    name: str,
    data: Data,
    task: Task,
    settings: Settings,
    power: float,
    choice: GateChoice,
    shares: Sequence[float],
    points: tuple[ScanPoint, ...],
    seconds: dict[str, float],
) -> ScanRecord:
    return ScanRecord(
        model=name,
        data=data.name,
        dimensions=choice.dimensions,
        currency="params" if settings.currency == "params" else "macs",
        power=float(power),
        depth_share=settings.depth_share,
        examples=len(choice.found.gradients),
        is_batched=choice.found.is_batched,
        score_name=task.name,
        points=points,
        versions=versions(),
        machine=machine_stamp(),
        seconds=seconds,
        out_of_reach=_out_of_reach(choice, shares),
        lowest_share=choice.lowest / predicted_macs(choice.structure),
        prices=settings.prices if settings.reconstruction else "fisher",
    )


def _checked(
    model: nn.Module,
    data: Any,
    task: Task | None,
    settings: Settings,
    examples: int,
    power: float,
    dimensions: str,
    shares: Sequence[float],
) -> Task:
    """The task, once all arguments are known to be possible."""
    judge = chosen_task(task, settings)
    check_kinds(model, data, settings)
    if isinstance(examples, bool) or not isinstance(examples, int) or examples < 1:
        raise SettingsError(f"examples: expected a whole number, 1 or more; got {examples!r}")
    if isinstance(power, bool) or not isinstance(power, int | float) or not 0 <= power <= 4:
        raise SettingsError(f"power: expected a number from 0 to 4, such as 1 or 0.5; got {power!r}")
    if dimensions not in DIMENSIONS:
        raise SettingsError(f"dimensions: expected one of {', '.join(DIMENSIONS)}, got {dimensions!r}")
    if not shares:
        raise SettingsError("shares: expected at least one share of the MACs, such as [0.5]; got none")
    for share in shares:
        _share(share)
    return judge


def _gated(
    model: nn.Module, example_inputs: Any, data: Data, task: Task, settings: Settings, splits: Sequence[str]
) -> tuple[Structure, Coordinates]:
    """What may go, and the coordinates of the gates (see `find_gates`), once these splits of the data fit the network.

    Raises:
        TargetError: there is no gate.
        ModelError, DataError: see `check_data`.
    """
    found = find_gates(removable(model, example_inputs, settings), model, streams=settings.streams)
    check_data(model, data, task, example_inputs, splits)
    return found


def _chosen(
    structure: Structure,
    coordinates: Coordinates,
    found: GateGradients,
    settings: Settings,
    power: float,
    dimensions: str,
    remainders: Remainders,
) -> GateChoice:
    """What goes for any cost, as the settings want it."""
    return choose_gates(
        structure,
        coordinates,
        found,
        currency=settings.currency,
        power=power,
        dimensions=dimensions,
        depth_share=settings.depth_share,
        rounding=settings.rounding(structure),
        remainders=remainders,
    )


def _removal(choice: GateChoice, share: float) -> Removal:
    wanted, dense = _share(share), predicted_macs(choice.structure)
    if choice.lowest > int(wanted * dense):
        lowest = -(-1000 * choice.lowest // dense) / 10
        words = {"both": "blocks and channels", "depth": "blocks alone", "width": "channels alone"}[choice.dimensions]
        raise TargetError(
            f"macs={share:.4g} cannot be reached by removing {words}; the lowest reachable share is macs={lowest:.1f}%"
        )
    return choice.removal(int(wanted * dense))


def _share(share: float) -> float:
    """`share`, once it is known to be a share of the MACs.

    Raises:
        TargetError: it is not.
    """
    amount = Target(macs=share).limits["macs"]
    if not amount.is_share:
        raise TargetError(f"expected a share of the dense network's MACs, such as 0.5; got {share!r}")
    return amount.number


def _frontier(choice: GateChoice, shares: Sequence[float], check: LossCheck) -> tuple[ScanPoint, ...]:
    """The dense network and a structure for each share that can be reached; one that a smaller structure beats gives
    its share to that, where the prediction for that holds."""
    dense = predicted_macs(choice.structure)
    within = [share for share in sorted(set(shares)) if int(share * dense) >= choice.lowest]
    if not within:
        _removal(choice, max(shares))  # says what the lowest is
    kept: list[ScanPoint] = []
    for share in within:
        point = check.checked(_point(choice, share, choice.removal(int(share * dense))))
        smaller = kept[-1] if kept else None
        if smaller and smaller.is_predicted and point.predicted_increase > smaller.predicted_increase:
            point = replace(smaller, share=share)
        kept.append(point)
    return (check.checked(_point(choice, 1.0, Removal())), *reversed(kept))


def _point(choice: GateChoice, share: float, removal: Removal) -> ScanPoint:
    structure, channels = choice.structure, removal.channels
    left, increase = after_removal(structure, channels, removal.blocks), choice.predicted_increase(removal)
    return ScanPoint(
        share=share,
        macs=predicted_macs(structure, channels, removal.blocks),
        parameters=predicted_parameters(structure, channels, removal.blocks),
        blocks_left=len(left.outer_blocks),
        channels_left=num_channels(left),
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
