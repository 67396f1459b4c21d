"""Every choice of a run, with its default, and the sets of choices that are called efforts."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, Literal

from amsc.errors import SettingsError, UnknownSettingError
from amsc.settings.allowed import check_type, check_value
from amsc.settings.contradictions import check_together
from amsc.structure import LIKED, Rounding, Structure, minima, stacks
from amsc.words.arguments import answers_typos
from amsc.words.nearest import nearest

__all__ = ["EFFORTS", "Settings", "plain_settings"]

EFFORTS: Mapping[str, Mapping[str, Any]] = {
    "instant": {"path_points": 1, "finetune_epochs": 0.0},
    "quick": {"path_points": 1, "finetune_epochs": 1.6},
    "standard": {},
    "thorough": {"path_points": 8, "finetune_epochs": 96.0},
    "paper": {
        "depth_rule": "one-standard-error",
        "weights": "amsc",
        "currency": "params",
        "path_epochs": 64.0,
        "path_points": 16,
        "finetune_epochs": 64.0,
        "reconstruction": 0,
        "distillation": 0.0,
        "round_to": 1,
    },
}
"""What each effort sets; all else is as by default."""


@answers_typos(UnknownSettingError)
@dataclasses.dataclass(frozen=True)
class Settings:
    """Every choice of a run.

    The dense network is first trained for `dense_epochs` (0: taken as it is). The path leads to the target in
    `path_points` points. With the `depth_rule` "equal-cost" and no `path_epochs` each of them is the best of some
    networks of that cost, with no, one, two, ... blocks gone, given back what can be without training (unless
    `depth_share` is 0: then no block goes that need not). With `path_epochs` of training the penalty, or the scans of
    the method "gates", empties what goes: the depth rules "one-standard-error" and "share" let depth use at most
    `depth_share` of the cost to be saved, "equal-cost" decides on blocks first. Then `finetune_epochs` follow. Epochs
    may be fractions. Training computes in `precision` float32, or in bfloat16 under autocast; "auto" tries what is
    faster, and whether channels last are, where it takes more than a minute. With `capture` training steps run as CUDA
    graphs. Learning rates: `dense_learning_rate` and `finetune_learning_rate` follow a cosine to zero,
    `path_learning_rate` is constant but for the settling end of each piece. `label_smoothing` is that of all training
    for classification. Fine-tuning learns from the dense network too: `distillation` is the weight of its soft targets
    at this `temperature` (None: 0.9 for classification, 0 for other tasks); with `ema` above 0 its outcome is the
    moving average of the weights with this decay per step. `batch_size`, `limit` (which caps the training examples) and
    `flip` (which training images are mirrored) are for data that amsc opens by name: data that come as an object decide
    themselves, and a run notes what they have.
    `reconstruction` is the number of training examples, without their labels, from which what a cut costs is given back
    (0: it is not). `prices` say what the channels of a scan are ordered by where it is: "obs", what losing them costs
    after that, or "fisher", what it costs before. `threads` are torch's (0: as it is set). Every `score_every` epochs
    of dense training and fine-tuning ("auto": four times, or less, within 5 % of the time; 0: never) the validation
    split is scored, to be looked at alone; not of networks that a search tries. `keep` and `only` are names
    or globs of what must not be touched, or of all that may be (see `amsc.structure.select`); what is left of a group
    that loses channels is a multiple of `round_to`, at least `min_channels` (see `amsc.structure.Rounding`). "auto" is
    8, and finer where a layer is so narrow that multiples of 8 would leave no choice, or where they would end far from
    a target; 1 rounds nothing. Each text in `minimum`, such as "layer3.*=16", says how many must be left where it names
    groups, as `keep` would. Lists of these become tuples. With `inexact` channels may go too that are not the same
    function removed as zeroed, such as those of a stream under LayerNorms (residual streams go as with `streams` then):
    they are judged by what the network is worth once it is reconstructed, and no proof covers them. With `uniform` the
    layers of a stack stay alike: the same place in each keeps as many channels (heads, hidden units), and blocks go as
    whole layers alone; of a model of transformers only what its configuration can say then (see
    `amsc.surgery.save_pretrained`).

    With the method "criterion" channels go by the prices of `criterion`, and blocks by those of `block_criterion`, on a
    path that does not train. With a `regularizer` the dense network is trained under it before, for `path_epochs` at
    `path_learning_rate`, and without a `criterion` channels go by the prices of the regularizer's own paper;
    `regularization` is its strength ("auto": what the channels need that go at the target, in the epochs there are, see
    `amsc.regularizers`).

    Raises:
        SettingsError: a value has the wrong type or is impossible, or (`UnknownSettingError`) there is no such setting.
    """

    seed: int = 0
    dense_epochs: float = 0.0
    method: str = "proximal"  # or "gates": cut by sensitivity and train in turns, without a penalty; or "criterion"
    criterion: str = ""  # with method="criterion": what channels are priced by, such as "l1" (see amsc.criteria)
    block_criterion: str = ""  # and blocks, such as "cka"; without it no block goes
    regularizer: str = ""  # with method="criterion": a penalty under which the dense network is trained first
    regularization: float | Literal["auto"] = "auto"  # its strength
    criterion_spread: str = "auto"  # "uniform": the same share of each layer; or "global", "knapsack"
    path_epochs: float = 0.0  # without any, the path is a ladder of networks at equal cost
    finetune_epochs: float = 16.0
    path_points: int = 4
    depth_share: float = 0.5
    depth_rule: str = "equal-cost"  # or the paper's "one-standard-error"; or "share": depth takes its whole share
    weights: str = "fisher"  # or the paper's amsc, and its ablations ssl, gl, rw
    theta_hat: str = "dense"  # where adaptive weights come from; or a first group-lasso piece, or refreshed at each
    currency: str = "target"  # what a group's size is counted in: what the target is about, macs or params
    batch_size: int = 128
    dense_learning_rate: float = 0.1
    path_learning_rate: float = 0.01
    finetune_learning_rate: float = 0.02
    optimizer: str = "sgd"  # or adamw, which needs other learning rates
    momentum: float = 0.9  # with adamw the first beta
    weight_decay: float = 1e-4
    label_smoothing: float = 0.0
    distillation: float | None = None  # 0.9 where the task is classification, else 0
    temperature: float = 4.0
    ema: float = 0.0
    precision: str = "auto"  # float32, or bfloat16 under autocast; auto tries what is faster where training takes long
    channels_last: bool = False  # for networks of 2-d convolutions that run in that layout
    capture: bool = False  # training steps are recorded and replayed as CUDA graphs
    device: str = "cpu"
    deterministic: bool = False
    limit: int | None = None
    flip: str = "random"  # of images that amsc reads: half of them mirrored, alternating between epochs, or none
    threads: int = 0
    score_every: float | Literal["auto"] = "auto"  # epochs; to watch training, nothing is chosen by these scores
    reconstruction: int = 1024  # examples; after every cut, see amsc.reconstruct
    prices: str = "obs"  # or "fisher": what channels cost before reconstruction; used where networks are scanned
    keep: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    inexact: bool = False  # LayerNorm streams and others that no proof covers may go as well, and streams
    streams: bool = False  # channels of residual streams may go as well; with method="gates", and in scans
    plain: bool = False  # plain convolutions may go as well: the path draws their kernels to the identity
    round_to: int | Literal["auto"] = "auto"
    min_channels: int = 1
    minimum: tuple[str, ...] = ()
    uniform: bool = False  # alike layers stay alike: equal numbers of channels, whole layers only

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if hints[field.name] == tuple[str, ...] and isinstance(value, list):
                value = tuple(value)
                object.__setattr__(self, field.name, value)
            check_type(field.name, value, hints[field.name])
            check_value(field.name, value)
        check_together(self)

    @property
    def with_streams(self) -> bool:
        """Whether channels of residual streams may go."""
        return self.streams or self.inexact

    @classmethod
    def of(cls, effort: str, **choices: Any) -> "Settings":
        """The settings of an effort, with other choices on top: "instant" (no training), "quick" (a tenth of the
        usual epochs), "standard" (the defaults), "thorough" (six times as many), or "paper" (its weights and
        sizes of groups, long schedules, neither reconstruction nor distillation nor rounding).

            amsc.compress(..., settings=amsc.Settings.of("instant", seed=1))

        Raises:
            SettingsError: there is no such effort or setting, or a value is impossible.
        """
        if effort not in EFFORTS:
            raise SettingsError(
                f"effort: expected one of {', '.join(EFFORTS)}, got {effort!r}{nearest(effort, EFFORTS)}"
            )
        return cls(**{**EFFORTS[effort], **choices})

    def rounding(self, structure: Structure) -> Rounding:
        """How many channels may be left in the groups of `structure`.

        Raises:
            SettingsError: `minimum` is not of its form, or names nothing.
        """
        multiple = LIKED if self.round_to == "auto" else self.round_to
        return Rounding(
            multiple,
            self.min_channels,
            minima(structure, self.minimum),
            gives_way=self.round_to == "auto",
            ties=stacks(structure) if self.uniform else (),
        )


def plain_settings(settings: Settings) -> dict[str, Any]:
    """The settings as JSON and TOML have them: lists, no tuples."""
    values = dataclasses.asdict(settings)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
