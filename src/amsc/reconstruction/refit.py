"""A cut network whose consumers are refitted to what the dense network has, front to back."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from amsc.borrowing import copied, named_tensors
from amsc.errors import CutError, ModelError, SettingsError
from amsc.parallel import told_of_failure
from amsc.reconstruction.batches import calibration, in_parts, own_batches
from amsc.reconstruction.fitting import Job, Target, refit
from amsc.reconstruction.norms import settle
from amsc.reconstruction.planning import Sample, narrower_layers, planned
from amsc.reconstruction.reading import read
from amsc.reconstruction.replay import Replay
from amsc.reconstruction.survey import survey
from amsc.records import ReconstructionRecord, RefittedLayer
from amsc.structure.names import is_in_any
from amsc.surgery import CutPlan, plan_of
from amsc.words.json_text import to_json
from amsc.words.page import Page
from amsc.words.shown import Shown

__all__ = ["Reconstruction", "reconstruct"]

KINDS = ("stream", "own")


@dataclass(frozen=True, repr=False)
class Reconstruction(Shown):
    """The network `model`, and the `record` of what was done to it as plain data (JSON by `to_json`)."""

    model: nn.Module
    record: ReconstructionRecord

    def page(self) -> Page:
        """Layer by layer, the error before and after."""
        return self.record.page()

    def in_a_line(self) -> str:
        """How many layers were refitted, on how many examples."""
        return self.record.in_a_line()

    def to_json(self, *, indent: int | None = None) -> str:
        """The record as JSON text."""
        return to_json(self.record, indent=indent)


def reconstruct(
    small: nn.Module,
    dense: nn.Module,
    inputs: Any,
    *,
    plan: CutPlan | None = None,
    examples: int = 1024,
    seed: int = 0,
    target: str = "stream",
    inner: bool = True,
    layers: int | None = None,
) -> Reconstruction:
    """`small` with the layers that read what was cut refitted, so that they come as near as they can to `dense`.

    Each of them gets the weights W with the least E |t - W u|^2 + mu |W - W0|^2, in closed form: u is what it reads in
    the small network as it is by then, front to back, t what its output should be (He, Zhang and Sun 2017).
    The strength mu is judged by examples held out, and the old weights W0 stay where nothing is gained. No labels are
    needed, and nothing is trained. Neither network is changed.

        small = amsc.cut(model, plan)
        small = amsc.reconstruct(small, model, loader).model

    Args:
        small: what `cut(dense, plan)` gave, trained since or not.
        dense: the network before this cut.
        inputs: batches as forward takes them, or pairs of these and targets: a loader, a list, or amsc's own data.
        plan: the plan of this cut; by default that of `small`, which leads to it from a network that was never cut.
        examples: at most so many are looked at.
        seed: draws the positions that are looked at.
        target: "stream": what is added to a residual stream should make up for what the stream lacks by then, and for
            blocks that are gone; "own": each layer should return what it returns in the dense network.

        inner: also refit layers that have all of their inputs and write to no stream. On ResNet-20 that was better by
            .2, .3, .8 and 2.9 points at 75, 60, 45 and 30 % of the MACs, and took half as long again (three seeds).
        layers: refit at most so many, those nearest behind what was cut first, and no `inner` ones.

    Raises:
        CutError: there is no plan, or it does not lead from `dense` to `small`.
        DataError: there are no examples.
        InputError: `inputs` are not what forward takes.
        SettingsError: `target`, `examples` or `layers` has an impossible value.
    """
    start = time.perf_counter()
    _check(small, dense, target, examples, layers)
    plan = _plan(small, dense, plan)
    with torch.inference_mode(False), torch.no_grad():
        found, model = calibration(inputs, plan.inputs, examples), copied(small)
        before, after = survey(dense, found.batches[0]), survey(model, found.batches[0])
        sample = Sample(target, inner and layers is None, layers, len(found.batches), seed)
        jobs, alone = planned(before.consumers, after.consumers, narrower_layers(model, plan), plan, sample)
        done = [*_refitted(model, dense, found.batches, jobs)]
        changed = [job.name for job, layer in done if layer.ridge is not None]
        if changed:
            settle(model, found.batches, after.norms_behind(changed[0]))
    refitted = (*(layer for _, layer in done), *alone)
    record = ReconstructionRecord(target, found.count, seed, refitted, time.perf_counter() - start)
    return Reconstruction(model, record)


def _check(small: Any, dense: Any, target: str, examples: int, layers: int | None) -> None:
    for model in (small, dense):
        if not isinstance(model, nn.Module):
            raise ModelError(f"expected two networks, the cut one and the dense one, got a {type(model).__name__}")
    if target not in KINDS:
        raise SettingsError(f"target must be {' or '.join(KINDS)}, not {target!r}")
    if not isinstance(examples, int) or examples < 1:
        raise SettingsError(f"examples must be a whole number of at least 1, not {examples!r}")
    if layers is not None and (not isinstance(layers, int) or layers < 1):
        raise SettingsError(f"layers must be a whole number of at least 1, or None for all, not {layers!r}")


def _plan(small: nn.Module, dense: nn.Module, plan: CutPlan | None) -> CutPlan:
    """The plan, once it is known to lead from the one to the other."""
    plan = plan or plan_of(small)
    if plan is None:
        raise CutError("the small network does not carry the plan of its cut; give it: reconstruct(..., plan=plan)")
    before, after = named_tensors(dense), named_tensors(small)
    made = {f"{layer}.bias" for layer in plan.folds}
    kept = {(cut.parameter, cut.axis): cut for cut in plan.cuts}
    for name, tensor in before.items():
        if name not in after and is_in_any(name, plan.blocks):
            continue
        cuts = [kept.get((name, axis)) for axis in range(tensor.ndim)]
        sizes = zip(cuts, tensor.shape, strict=True)
        fits = all(cut is None or cut.size == size for cut, size in zip(cuts, tensor.shape, strict=True))
        shape = tuple(size if cut is None else len(cut.kept) for cut, size in sizes)
        got = tuple(after[name].shape) if name in after else None
        if got != shape or not fits:
            raise CutError(
                f"{name!r} has shape {tuple(tensor.shape)} in the dense network and"
                f" {'is missing' if got is None else got} in the small one, which is not what the plan makes of it;"
                " give the network as it was before this cut, and its plan: reconstruct(..., plan=plan)"
            )
    if unknown := [name for name in after if name not in before and name not in made]:
        raise CutError(f"the small network has {unknown[0]!r}, which the dense one does not have; are they of one cut?")
    return plan


def _refitted(
    model: nn.Module, dense: nn.Module, batches: Sequence[Any], jobs: Sequence[Job]
) -> Iterator[tuple[Job, RefittedLayer]]:
    replay, own = Replay(model), own_batches(batches)
    sizes = [min(1.0, job.share) * job.consumer.positions * len(own) * len(job.kept) * 8 for job in jobs]
    for part in in_parts(jobs, sizes):
        targets = _targets(dense, own, part)
        for job in part:
            layer = refit(model, batches, job, [target.pop(job.name, None) for target in targets], replay)
            if layer is not None:
                yield job, layer


def _targets(dense: nn.Module, batches: Sequence[tuple[int, Any]], jobs: Sequence[Job]) -> list[dict[str, Target]]:
    """What the dense network has in each batch for each of the jobs."""
    by_name = {job.name: job for job in jobs}
    wanted = {job.name: job.dense_wanted for job in jobs}

    def positions(number: int, name: str, total: int) -> Tensor:
        return by_name[name].positions(number, total)

    def look() -> list[dict[str, Target]]:
        with closing(read(dense, batches, wanted, positions, inputs=False)) as every:
            return [
                {name: _kept_of(row.values, row.scale, by_name[name].kept) for name, row in rows.items()}
                for rows in every
            ]

    return told_of_failure(look)


def _kept_of(values: Tensor, scale: Tensor, kept: Sequence[int]) -> Target:
    index = torch.tensor(kept, device=values.device)
    return Target(values.index_select(1, index), scale.index_select(1, index))
