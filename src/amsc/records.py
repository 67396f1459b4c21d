"""Frozen values that the stages hand to each other, and their way to JSON and back.

Any frozen dataclass made of numbers, strings, None, tuples, dictionaries and other such dataclasses
can be written with `to_json` and read with `from_json`; the type annotations are the schema.
"""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from amsc.errors import AmscError

__all__ = ["Measurement", "PathPoint", "Record", "ScanPoint", "ScanRecord", "Timing", "from_json", "to_json"]

T = TypeVar("T")


def to_json(record: Any, *, indent: int | None = None) -> str:
    """The record (a dataclass instance) as JSON text."""
    return json.dumps(dataclasses.asdict(record), indent=indent)


def from_json(kind: type[T], text: str) -> T:
    """A record of the dataclass `kind` from what `to_json` wrote.

    Raises:
        AmscError: the text is not JSON or does not have the fields of `kind`.
    """
    try:
        return typing.cast(T, _build(kind, json.loads(text)))
    except (TypeError, KeyError, ValueError) as error:
        raise AmscError(f"expected a saved {kind.__name__}, but the JSON does not fit: {error}") from error


def _build(kind: Any, value: Any) -> Any:
    """`value`, parsed JSON, as an instance of the annotation `kind`."""
    if kind is Any:
        return value
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        (inner,) = (a for a in arguments if a is not type(None))
        return _build(inner, value)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return tuple(_build(arguments[0], v) for v in value)
        return tuple(_build(a, v) for a, v in zip(arguments, value, strict=True))
    if origin in (dict, Mapping) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return {k: _build(arguments[1], v) for k, v in value.items()}
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        unknown = set(value) - {f.name for f in dataclasses.fields(kind)}
        if unknown:
            raise ValueError(f"unknown fields {sorted(unknown)}")
        return kind(**{name: _build(hints[name], v) for name, v in value.items()})  # type: ignore[operator]
    return kind(value) if kind is float else value


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What a model costs. `macs` are multiply-adds for the example inputs as given, counted by running
    the model; `latency_seconds` is the median of `latency_runs` timed calls and `latency_spread_seconds`
    their interquartile range; `peak_memory_bytes` the largest sum of live activations and weights."""

    parameters: int
    bytes: int
    macs: int
    latency_seconds: float
    latency_spread_seconds: float
    latency_runs: int
    peak_memory_bytes: int
    machine: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Timing:
    """A model of the latency on this machine: seconds per unit of each of `amsc.structure.time_features`. It was fitted
    to `networks` timed networks, the dense one (`dense_seconds`) among them, with this median relative `error`."""

    dense_seconds: float
    coefficients: tuple[float, ...]
    error: float
    networks: int


@dataclasses.dataclass(frozen=True)
class PathPoint:
    """One point of the path: what is left of the network at one strength and how well it does.

    `phase` is "dense", "depth", "width" or "finetune"; `strength` is lambda0 in the depth phase, lambda1 in the width
    phase; `epochs` counts all training so far, in passes over the training data; `score` is the
    validation metric after BatchNorm re-estimation. `removed_blocks` and `removed_channels`
    (group name -> indices) refer to the dense network. `weights` names a file under `points/`, or None.
    """

    phase: str
    index: int
    strength: float
    epochs: float
    macs: int
    parameters: int
    blocks_left: int
    channels_left: int
    train_loss: float
    score: float
    removed_blocks: tuple[str, ...]
    removed_channels: Mapping[str, tuple[int, ...]]
    weights: str | None = None


@dataclasses.dataclass(frozen=True)
class Record:
    """The outcome of one run: before, after, the path between, and what is needed to believe it.

    Scores are the metric on the test split. `verification_error` is the largest relative difference
    between the masked and the cut model. `warnings` say what makes the outcome useless, such as a dense network that
    had learnt nothing, or a small one that lost it. Two runs with the same settings, seed and machine agree in
    everything but `seconds`, the latencies and the peak memory.
    """

    model: str
    data: str
    target: str
    settings: Mapping[str, Any]
    score_name: str
    score_before: float
    score_after: float
    before: Measurement
    after: Measurement
    removed_blocks: tuple[str, ...]
    removed_channels: Mapping[str, tuple[int, ...]]
    blocks_before: int
    channels_before: int
    verification_error: float
    path: tuple[PathPoint, ...]
    versions: Mapping[str, str]
    seconds: Mapping[str, float]
    warnings: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class ScanPoint:
    """A structure that a scan proposes, before any training.

    `share` is the share of the dense MACs it was made for; `predicted_increase` how much the loss is predicted to grow,
    never less than 0. It is 0 where it `is_beyond_model`: there the loss would fall by more than chance, as the network
    is not at its minimum, and the model, which is one of a minimum, knows nothing of what is lost.
    Where it was asked for: `score` and `score_reestimated` on the validation split, with the running statistics of
    BatchNorm as they were and estimated anew; `latency_seconds` with its interquartile range.
    """

    share: float
    macs: int
    parameters: int
    blocks_left: int
    channels_left: int
    predicted_increase: float
    removed_blocks: tuple[str, ...]
    removed_channels: Mapping[str, tuple[int, ...]]
    is_beyond_model: bool = False
    score: float | None = None
    score_reestimated: float | None = None
    latency_seconds: float | None = None
    latency_spread_seconds: float | None = None


@dataclasses.dataclass(frozen=True)
class ScanRecord:
    """The frontier of a scan: the dense network as the first of `points`, then one for each share that was asked for,
    ever smaller ones; several shares may have the same network.

    Shares `out_of_reach` have none: `lowest_share` of the MACs is the least that can be left. `examples` training
    examples were looked at; `is_batched` tells whether they shared backward passes. `seconds` are those of each stage.
    """

    model: str
    data: str
    dimensions: str
    currency: str
    power: float
    depth_share: float
    examples: int
    is_batched: bool
    score_name: str
    points: tuple[ScanPoint, ...]
    versions: Mapping[str, str]
    machine: Mapping[str, str]
    seconds: Mapping[str, float]
    out_of_reach: tuple[float, ...] = ()
    lowest_share: float = 0.0
