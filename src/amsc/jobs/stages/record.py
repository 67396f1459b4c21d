"""The record of a run, with the proof that plan and weights are enough to make its network."""

import platform
from dataclasses import replace
from importlib import metadata

import torch
from torch import nn

from amsc.jobs.run_state import RunState
from amsc.jobs.stages.account import asked_of, circumstances, layer_widths, standard_error, staying
from amsc.jobs.stages.job import Job, end_of, plan_of_removal
from amsc.jobs.stages.ruin import words_after, words_of_rejected
from amsc.limits.target import describe_target
from amsc.measurement import measure
from amsc.records import Measurement, Record
from amsc.settings import plain_settings
from amsc.surgery import cut_with_error, unfolded, verify
from amsc.training import Removal, Shrunk, evaluate, num_channels
from amsc.training.path.free import judged_shares
from amsc.words.amounts import SHARES

__all__ = ["record_of", "versions"]


def record_of(job: Job, state: RunState, small: Shrunk) -> Record:
    """The outcome: before, after, the path between, and what is needed to believe it."""
    assert state.before is not None, "the first stage has set it"
    assert state.walk is not None, "the second stage has set it"
    judged = state.walk.candidates if job.target.is_free else ()
    before, after = _timed_in_turns(job, state.before, measure(small.model, job.example_inputs), small.model)
    removal, test = end_of(state).removal, evaluate(small.model, job.data, "test", job.task)
    return Record(
        model=job.name,
        data=job.data.name,
        target=describe_target(job.target, job.task.name, is_share=job.task.name in SHARES),
        settings=plain_settings(
            replace(job.settings, precision=job.speed.precision, channels_last=job.speed.channels_last)
        ),
        score_name=job.task.name,
        score_before=state.score_before,
        score_after=test.score,
        before=before,
        after=after,
        removed_blocks=removal.blocks,
        removed_channels=removal.channels,
        blocks_before=len(job.structure.outer_blocks),
        channels_before=num_channels(job.structure, streams=job.settings.with_streams),
        verification_error=max(state.walk.error, _final_error(job, removal, small)),
        unproven=plan_of_removal(job, removal).unproven,
        path=state.points,
        versions=versions(),
        seconds=state.seconds,
        judged_shares=judged_shares(job.structure, judged, job.task) if judged else (),
        warnings=(
            *job.losses.notes,
            *words_after(job, state.score_before, test.score, small.model),
            *words_of_rejected(job, state.points[-1]),
        ),
        about=circumstances(job),
        asked=asked_of(job.target),
        layers=layer_widths(job, removal, state.points),
        training=job.losses.curves,
        staying=staying(job.structure),
        score_error=standard_error(state.scores_before, test.per_example),
    )


def versions() -> dict[str, str]:
    """Versions of what the result depends on."""
    try:
        own = metadata.version("amsc")
    except metadata.PackageNotFoundError:  # run from a source tree that is not installed
        own = "unknown"
    return {"amsc": own, "torch": torch.__version__, "python": platform.python_version()}


def _timed_in_turns(
    job: Job, before: Measurement, after: Measurement, small: nn.Module
) -> tuple[Measurement, Measurement]:
    """Both with latencies that were taken at the same time."""
    (dense, dense_spread), (cut, cut_spread) = job.target.clock(
        [job.dense, small], job.example_inputs, rounds=after.latency_runs
    )
    runtime = job.target.runtime
    return (
        replace(before, latency_seconds=dense, latency_spread_seconds=dense_spread, runtime=runtime),
        replace(after, latency_seconds=cut, latency_spread_seconds=cut_spread, runtime=runtime),
    )


def _final_error(job: Job, removal: Removal, small: Shrunk) -> float:
    """Proof that plan and weights are enough to make the small network again, and that it costs what was predicted.

    The dense network cut by the composed plan and filled with the small network's weights must give its outputs. What
    goes of groups that no proof covers is compared only with the same cut of that network."""
    plan = plan_of_removal(job, removal)
    filled = unfolded(job.dense, small.model, plan)
    if not plan.unproven:
        return verify(filled, small.model, plan, job.example_inputs)
    again, error = cut_with_error(filled, job.structure, plan, job.example_inputs)
    return max(error, verify(again, small.model, plan_of_removal(job, Removal()), job.example_inputs))
