"""Frozen values that the stages hand to each other; `to_json` and `from_json` write and read them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from amsc.words.json_text import from_json, to_json
from amsc.words.page import Page
from amsc.words.shown import Shown

__all__ = [
    "Asked",
    "Circumstances",
    "DepthCandidate",
    "JudgedShare",
    "LayerWidths",
    "Measurement",
    "NormTrace",
    "PathPoint",
    "ReconstructionRecord",
    "Record",
    "RefittedLayer",
    "ScanPoint",
    "ScanRecord",
    "Staying",
    "Timing",
    "TrainingCurve",
    "from_json",
    "to_json",
]


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What a model costs. `macs` are multiply-adds for the example inputs as given, counted by running
    the model; `latency_seconds` is the median of `latency_runs` timed calls and `latency_spread_seconds`
    their interquartile range, in PyTorch or the `runtime` that is named; `peak_memory_bytes` the largest sum of live
    activations and weights."""

    parameters: int
    bytes: int
    macs: int
    latency_seconds: float
    latency_spread_seconds: float
    latency_runs: int
    peak_memory_bytes: int
    machine: Mapping[str, str]
    runtime: str = "torch"


@dataclasses.dataclass(frozen=True)
class Timing:
    """A model of the latency on this machine: seconds per unit of each of `amsc.structure.time_features`. It was fitted
    to `networks` timed networks, the dense one (`dense_seconds`) among them, with this median relative `error`."""

    dense_seconds: float
    coefficients: tuple[float, ...]
    error: float
    networks: int


@dataclasses.dataclass(frozen=True)
class DepthCandidate:
    """A network at the target that was judged to find how many blocks should go: the blocks that are gone, what it
    costs, its validation score before any training, and the share of its width that every layer had to keep."""

    removed_blocks: tuple[str, ...]
    macs: int
    score: float
    least_share: float = 0.0


@dataclasses.dataclass(frozen=True)
class JudgedShare:
    """A network that was judged to find how small one gets for nothing: its share of the dense MACs, its score on so
    many validation `examples` before any fine-tuning, how far that lies `behind` the best of all that were judged (0 or
    more: worse), and the paired standard error of that difference. It `is_as_good` if it lies behind by no more."""

    share: float
    macs: int
    score: float
    behind: float
    standard_error: float
    examples: int
    is_as_good: bool


@dataclasses.dataclass(frozen=True)
class NormTrace:
    """How large the penalised groups were while a piece of the path trained, at a few moments of it: the moments in
    `epochs` of all training so far, the strength of the penalty from then on, the norm of each block, and of each
    channel group the root of the sum of its channels' squares. What is no longer in the network has none."""

    epochs: tuple[float, ...]
    strengths: tuple[float, ...]
    blocks: Mapping[str, tuple[float, ...]]
    groups: Mapping[str, tuple[float, ...]]


@dataclasses.dataclass(frozen=True)
class TrainingCurve:
    """The loss of a stretch of training, each over the last few steps, after so many `epochs` of its `phase`: "dense",
    "regularize", "depth" and "width" (which count on together), or "finetune" (one curve for each network that was).
    The `scores` are those on the validation split on the way, after `score_epochs`; nothing was chosen by them."""

    phase: str
    epochs: tuple[float, ...]
    losses: tuple[float, ...]
    score_epochs: tuple[float, ...] = ()
    scores: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class PathPoint:
    """One point of the path: what is left of the network at one strength and how well it does.

    `phase` is "dense", "regularized", "depth", "width" or "finetune"; `strength` is lambda0 in the depth phase, lambda1
    in the width phase; `epochs` counts all training so far, in passes over the training data; `score` is the
    validation metric after BatchNorm re-estimation. `removed_blocks` and `removed_channels`
    (group name -> indices) refer to the dense network. `weights` names a file under `points/`, or None; `repaired` says
    how what the cut cost was given back, if it was. `candidates` are the networks among which depth was chosen at equal
    cost; the point is the one that was. `score_before` is what fine-tuning began with, `rejected_score` what
    it led to where that was worse: its outcome was not taken. `norms` are those of the groups on the way to the point,
    where a penalty was at work.
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
    repaired: "ReconstructionRecord | None" = None
    candidates: tuple[DepthCandidate, ...] = ()
    rejected_score: float | None = None
    score_before: float | None = None
    norms: NormTrace | None = None


@dataclasses.dataclass(frozen=True)
class Asked:
    """One thing that the target said: `what` is "macs", "params", "bytes", "latency", "memory" or "drop" (how far the
    score may fall); `number` is a share of the dense network's if it `is_share`, or an amount."""

    what: str
    number: float
    is_share: bool = False


@dataclasses.dataclass(frozen=True)
class LayerWidths:
    """A layer with weights: its class (`kind`), how many channels it makes, and the multiply-adds it takes, before and
    after; 0 if it is gone, and then `block` is the one that it went with ("" if it went otherwise). `along_path` are
    its widths at the points of the path, in their order."""

    name: str
    kind: str
    before: int
    after: int
    macs_before: int
    macs_after: int
    block: str = ""
    along_path: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Staying:
    """Why something cannot go: so many `axes` of parameters (0: it is a block), which, and the line of the user's code
    ("" if it is not known)."""

    why: str
    axes: int
    which: str
    source: str = ""


@dataclasses.dataclass(frozen=True)
class Circumstances:
    """What a run was about, besides its numbers.

    Attributes:
        network: the class of the network.
        examples: how many examples each split of the data has.
        inputs: the shapes of the example inputs, for which costs are counted; a batch comes first as a rule.
        classes: how many the data have, if that is known.
        higher_is_better: what the score is like.
        fingerprints: short texts that differ for other data ("data") and for another dense network ("network").
        built_from: where the network came from, as far as the command line knows it: `model`, `num_classes`,
            `in_channels`.
        date: when the run ended, in UTC as ISO 8601 writes it. Records that differ in nothing else are equal.
        defined_in: the module that the class of the network is in.
    """

    network: str
    examples: Mapping[str, int]
    inputs: tuple[tuple[int, ...], ...]
    classes: int | None = None
    higher_is_better: bool = True
    fingerprints: Mapping[str, str] = dataclasses.field(default_factory=dict)
    built_from: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    date: str = dataclasses.field(default="", compare=False)
    defined_in: str = ""


@dataclasses.dataclass(frozen=True, repr=False)
class Record(Shown):
    """The outcome of one run: before, after, the path between, and what is needed to believe it.

    Scores are the metric on the test split. `verification_error` is the largest relative difference
    between the masked and the cut model; what went of the groups in `unproven` (name -> why) is not covered by it, but
    judged by the scores alone. `warnings` say what makes the outcome useless, such as a dense network that
    had learnt nothing, or a small one that lost it. `judged_shares` are the networks among which one was chosen where
    the target was free, the largest first. Two runs with the same settings, seed and machine agree in everything but
    `seconds`, the latencies, the peak memory and the date.

    Of older records the rest is empty: `about` the run, what the target `asked`, the `layers` in the order of the
    forward pass, the `training` curves, what is `staying` and why, and the paired standard error of
    `score_after - score_before` over the test examples (None of a single one).
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
    judged_shares: tuple[JudgedShare, ...] = ()
    unproven: Mapping[str, str] = dataclasses.field(default_factory=dict)
    about: Circumstances | None = None
    asked: tuple[Asked, ...] = ()
    layers: tuple[LayerWidths, ...] = ()
    training: tuple[TrainingCurve, ...] = ()
    staying: tuple[Staying, ...] = ()
    score_error: float | None = None

    def page(self) -> Page:
        """What became of the network."""
        from amsc.words.record import record_page  # which reads records

        return record_page(self)

    def in_a_line(self) -> str:
        """The model, the data and the target."""
        return f"{self.model} on {self.data}, {self.target}"


@dataclasses.dataclass(frozen=True)
class ScanPoint:
    """A structure that a scan proposes, before any training.

    `share` is the share of the dense MACs it was made for; `predicted_increase` how much the loss is predicted to grow,
    never less than 0. It is 0 where it `is_beyond_model`: there the loss would fall by more than chance, as the network
    is not at its minimum, and the model, which is one of a minimum, knows nothing of what is lost.
    `seen_increase` is how much the loss of a few training examples grows with what goes set to zero; the prediction
    `is_far_off` where that is more than ten times as much, as of a network that fits its examples so well that their
    loss has hardly any slope.
    Where it was asked for: `seen_increase_reconstructed` is the same of the network that was cut and reconstructed,
    `repaired` says how, `not_reconstructed` why it could not be; `score`, `score_reestimated` and `score_reconstructed`
    are those on the validation split, of the network as cut, with the statistics of BatchNorm estimated anew, and
    reconstructed; `latency_seconds` comes with its interquartile range.
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
    seen_increase: float | None = None
    is_far_off: bool = False
    seen_increase_reconstructed: float | None = None
    score_reconstructed: float | None = None
    repaired: "ReconstructionRecord | None" = None
    not_reconstructed: str | None = None

    @property
    def is_predicted(self) -> bool:
        """Whether `predicted_increase` is to be trusted."""
        return not self.is_beyond_model and not self.is_far_off


@dataclasses.dataclass(frozen=True)
class ScanRecord:
    """The frontier of a scan: the dense network as the first of `points`, then one for each share that was asked for,
    ever smaller ones; several shares may have the same network.

    Shares `out_of_reach` have none: `lowest_share` of the MACs is the least that can be left. `examples` training
    examples were looked at; `is_batched` tells whether they shared backward passes. `seconds` are those of each stage.
    `prices` put the channels in order: "fisher" or "obs", see `Settings`. The cuts of the groups in `unproven` (name ->
    why) cannot be proven.
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
    prices: str = "fisher"
    unproven: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class RefittedLayer:
    """A layer of a reconstruction, refitted to its `target`: its "own" output in the dense network, or the "stream" to
    which that is added.

    The errors are those on the examples held out, squared, as shares of the variance of what it should be; `ridge` is
    the strongest that was as good as the best there, None where no change was better. A layer that was left alone has a
    `reason`."""

    name: str
    target: str = ""
    error_before: float | None = None
    error_after: float | None = None
    ridge: float | None = None
    reason: str = ""


@dataclasses.dataclass(frozen=True, repr=False)
class ReconstructionRecord(Shown):
    """What a reconstruction did: its layers, first those that were refitted, front to back; on how many `examples`, of
    which none has a label; and in how many `seconds`, which are None where it is part of a run: those of the stage are
    counted then."""

    target: str
    examples: int
    seed: int
    layers: tuple[RefittedLayer, ...]
    seconds: float | None = None

    def page(self) -> Page:
        """Layer by layer, the error before and after."""
        from amsc.words.record import reconstruction_page  # which reads records

        return reconstruction_page(self)

    def in_a_line(self) -> str:
        """How many layers were refitted, on how many examples."""
        refitted = sum(layer.ridge is not None for layer in self.layers)
        time = "" if self.seconds is None else f" in {self.seconds:.1f} s"
        return f"{refitted} layers refitted on {self.examples} examples{time}"
