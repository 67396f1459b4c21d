"""What a run needs to be repeated: the model, the data, the target and every choice, with their defaults.

The file `settings.toml` has the tables `[run]` (model, weights, data, target) and `[settings]` (the choices), and
`[python]` (what objects there were) for a run that was started from Python.
"""

import dataclasses
import math
import re
import sys
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import tomli_w

from amsc.contradictions import check_together
from amsc.data.images import FLIPS
from amsc.errors import SettingsError, UnknownSettingError
from amsc.storage import write_atomically
from amsc.structure import LIKED, Rounding, Structure, minima, stacks
from amsc.words.arguments import answers_typos
from amsc.words.nearest import nearest

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

__all__ = [
    "EFFORTS",
    "RunSettings",
    "Settings",
    "plain_settings",
    "read_settings",
    "read_toml",
    "write_settings",
]

OF_WEIGHTS = ("random", "l1", "l2", "batchnorm-scale", "geometric-median", "lamp")
CRITERIA = (*OF_WEIGHTS, "taylor", "fisher", "hrank", "chip", "hsic")
BLOCK_CRITERIA = ("cka", "shortgpt", "dbp", "entropy", "taylor")
"""What other people's criteria are called; `amsc.criteria.table` has them."""
CHOICES = {
    "method": ("proximal", "gates", "criterion"),
    "criterion": ("", *CRITERIA),
    "block_criterion": ("", *BLOCK_CRITERIA),
    "criterion_spread": ("auto", "uniform", "global", "knapsack"),
    "depth_rule": ("equal-cost", "one-standard-error", "share"),
    "weights": ("fisher", "amsc", "ssl", "gl", "rw"),
    "theta_hat": ("dense", "group-lasso", "refreshed"),
    "currency": ("target", "macs", "params"),
    "prices": ("obs", "fisher"),
    "optimizer": ("sgd", "adamw"),
    "precision": ("auto", "float32", "bfloat16"),
    "flip": FLIPS,
}

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

FROM_COMMAND = "# Everything needed to run this again: amsc compress --settings FILE\n"
FROM_PYTHON = """\
# Written for a run that was started from Python, with the objects in [python].
# What [run] does not name has to be given again: amsc resume RUN --model MODEL --data DATA
"""
PYTHON = {"name", "model", "data", "task"}

# key -> (lowest, highest, is the lowest itself allowed, is the highest itself allowed)
RANGES: Mapping[str, tuple[float, float, bool, bool]] = {
    "seed": (0, 2**32 - 1, True, True),
    "dense_epochs": (0, math.inf, True, False),
    "path_epochs": (0, math.inf, True, False),
    "finetune_epochs": (0, math.inf, True, False),
    "path_points": (1, math.inf, True, False),
    "depth_share": (0, 1, True, True),
    "batch_size": (1, math.inf, True, False),
    "dense_learning_rate": (0, math.inf, False, False),
    "path_learning_rate": (0, math.inf, False, False),
    "finetune_learning_rate": (0, math.inf, False, False),
    "momentum": (0, 1, True, False),
    "label_smoothing": (0, 1, True, False),
    "distillation": (0, 1, True, True),
    "temperature": (0, math.inf, False, False),
    "ema": (0, 1, True, False),
    "weight_decay": (0, math.inf, True, False),
    "limit": (1, math.inf, True, False),
    "reconstruction": (0, math.inf, True, False),
    "round_to": (1, math.inf, True, False),
    "min_channels": (1, math.inf, True, False),
    "threads": (0, math.inf, True, False),
    "score_every": (0, math.inf, True, False),
}


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
    path that does not train.

    Raises:
        SettingsError: a value has the wrong type or is impossible, or (`UnknownSettingError`) there is no such setting.
    """

    seed: int = 0
    dense_epochs: float = 0.0
    method: str = "proximal"  # or "gates": cut by sensitivity and train in turns, without a penalty; or "criterion"
    criterion: str = ""  # with method="criterion": what channels are priced by, such as "l1" (see amsc.criteria)
    block_criterion: str = ""  # and blocks, such as "cka"; without it no block goes
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
            _check_type(field.name, value, hints[field.name])
            _check_value(field.name, value)
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


@answers_typos(UnknownSettingError)
@dataclasses.dataclass(frozen=True)
class RunSettings:
    """A whole run as it is typed: what to compress, on which data, to which target, with which choices.

    `target` is text such as "macs=50%", `task` a name or function that `amsc.tasks.open_task` takes. `num_classes` and
    `in_channels` are what the model was built with, so that it can be built again without the data. None means "not
    said". A run that was started from Python was handed objects: `python` says of what "name" and class ("model") the
    network was, which "data", and which "task" if that is not one of amsc's.
    """

    model: str | None = None
    weights: str | None = None
    data: str | None = None
    target: str | None = None
    task: str | None = None
    num_classes: int | None = None
    in_channels: int | None = None
    python: Mapping[str, str] = dataclasses.field(default_factory=dict)
    settings: Settings = dataclasses.field(default_factory=Settings)

    def changed(self, changes: Mapping[str, Any], settings: Mapping[str, Any]) -> "RunSettings":
        """These settings with `changes` of the run and of its choices on top; a change to None is none.

        Raises:
            SettingsError: a changed value is impossible.
        """
        choices = {key: value for key, value in settings.items() if value is not None}
        said = {key: value for key, value in changes.items() if value is not None}
        return dataclasses.replace(self, settings=dataclasses.replace(self.settings, **choices), **said)


def _check_type(key: str, value: Any, kind: Any) -> None:
    if kind == tuple[str, ...]:
        if not isinstance(value, tuple) or not all(isinstance(each, str) and each for each in value):
            raise SettingsError(f"{key}: expected a list of names or globs such as ['layer1*'], got {value!r}")
        return
    kinds = typing.get_args(kind) or (kind,)
    words = [word for each in kinds for word in typing.get_args(each)]
    if isinstance(value, str) and value in words:
        return
    allowed = tuple(each for each in kinds if not typing.get_args(each))
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if float in allowed and is_number:
        return
    if (isinstance(value, bool) and bool not in allowed) or not isinstance(value, allowed):
        names = ["nothing" if a is type(None) else _KIND_WORDS[a] for a in allowed]
        raise SettingsError(f"{key}: expected {' or '.join([*names, *words])}, got {value!r}")


_KIND_WORDS: Mapping[Any, str] = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _check_value(key: str, value: Any) -> None:
    if key in CHOICES and value not in CHOICES[key]:
        known = [word for word in CHOICES[key] if word]
        raise SettingsError(f"{key}: expected one of {', '.join(known)}, got {value!r}{nearest(value, known)}")
    if key == "device" and not re.fullmatch(r"cpu|mps|cuda(:\d+)?", value):
        raise SettingsError(f"device: expected cpu, cuda, cuda:N or mps, got {value!r}")
    if key in RANGES and isinstance(value, int | float):
        lowest, highest, with_lowest, with_highest = RANGES[key]
        fits = (lowest <= value if with_lowest else lowest < value) and (
            value <= highest if with_highest else value < highest
        )
        if not fits:
            raise SettingsError(f"{key}: expected {_range_words(*RANGES[key])}, got {value!r}")


def _range_words(lowest: float, highest: float, with_lowest: bool, with_highest: bool) -> str:
    low = f"{lowest:g} or more" if with_lowest else f"more than {lowest:g}"
    if highest == math.inf:
        return f"a finite number, {low}"
    return f"{low} and {'at most' if with_highest else 'less than'} {highest:.10g}"


def read_settings(path: Path) -> RunSettings:
    """The run that a settings file describes; what it does not say keeps its default.

    Raises:
        SettingsError: there is no such file, it is not TOML, or it has an unknown key or an impossible value.
    """
    tables = read_toml(path)
    try:
        return _run_from_tables(tables)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        SettingsError: there is no such file, or it is not TOML.
    """
    try:
        tables: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read the settings file {path}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"the settings file {path} is not valid TOML: {error}") from error
    return tables


def _run_from_tables(tables: Mapping[str, Any]) -> RunSettings:
    keys = {
        "run": set(_hints(RunSettings)) - {"settings", "python"},
        "settings": set(_hints(Settings)),
        "python": PYTHON,
    }
    for name, table in tables.items():
        if name not in keys or not isinstance(table, dict):
            raise SettingsError(_unknown_at_top(name, keys))
        for key in table:
            if key not in keys[name]:
                raise SettingsError(_unknown_key(key, name, keys))
    choices = {key: _from_toml(_hints(Settings)[key], value) for key, value in tables.get("settings", {}).items()}
    for key, value in tables.get("run", {}).items():
        _check_type(key, value, _hints(RunSettings)[key])
    for key, value in tables.get("python", {}).items():
        _check_type(key, value, str)
    return RunSettings(settings=Settings(**choices), python=tables.get("python", {}), **tables.get("run", {}))


def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _from_toml(kind: Any, value: Any) -> Any:
    """TOML tells 8 from 8.0, and a setting that may be a fraction takes both."""
    return float(value) if kind is float and type(value) is int else value


def plain_settings(settings: Settings) -> dict[str, Any]:
    """The settings as JSON and TOML have them: lists, no tuples."""
    values = dataclasses.asdict(settings)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def _unknown_at_top(name: str, keys: Mapping[str, set[str]]) -> str:
    for table, known in keys.items():
        if name in known:
            return f"key {name!r} stands outside a table; it belongs in [{table}]"
    return f"unknown table [{name}]; expected [run] and [settings]{nearest(name, keys)}"


def _unknown_key(key: str, table: str, keys: Mapping[str, set[str]]) -> str:
    for other, known in keys.items():
        if key in known:
            return f"key {key!r} in [{table}] belongs in [{other}]"
    hint = nearest(key, sorted(keys[table]))
    return f"unknown key {key!r} in [{table}]{hint or '; known are ' + ', '.join(sorted(keys[table]))}"


def write_settings(path: Path, run: RunSettings) -> None:
    """Write `run` so that `read_settings` gives it back; what is None is left out.

    Raises:
        RunFolderError: the file cannot be written.
    """
    values = dataclasses.asdict(run)
    del values["settings"], values["python"]
    choices = {key: value for key, value in plain_settings(run.settings).items() if value is not None}
    said = {key: value for key, value in values.items() if value is not None}
    tables = {"run": said, "settings": choices, **({"python": dict(run.python)} if run.python else {})}
    text = (FROM_PYTHON if run.python else FROM_COMMAND) + tomli_w.dumps(tables)
    write_atomically(path, text.encode())
