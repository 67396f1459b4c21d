"""The flags that commands share, and the run they describe: defaults, then a settings file, then flags."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amsc.cli.parser import UsageError
from amsc.cli.trust import refuse_functions
from amsc.settings import CHOICES, EFFORTS, RunSettings, Settings, read_settings

__all__ = [
    "MODEL_HELP",
    "TASK_HELP",
    "add_effort_flag",
    "add_limit_flags",
    "add_network_flag",
    "add_object_flags",
    "add_run_flags",
    "add_setting_flags",
    "check_named",
    "required",
    "run_settings",
]


def _number_or_auto(text: str) -> float | str:
    """A number, or the word for the usual ones."""
    try:
        return text if text == "auto" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected auto or a number, 0 or more; got {text!r}") from None


# field of Settings -> (kind, placeholder, help)
SETTING_FLAGS: dict[str, tuple[Any, str, str]] = {
    "dense_epochs": (float, "E", "train the dense network first for so many epochs"),
    "method": (
        str,
        "",
        "the path: a penalty empties what goes (proximal), cut and train in turns (gates), or by other people's prices"
        " (criterion)",
    ),
    "criterion": (
        str,
        "",
        "what channels are priced by, with --method criterion (hrank: by maps with two axes; batchnorm-scale: of layers"
        " with BatchNorm; docs/criteria.md)",
    ),
    "block_criterion": (str, "", "what blocks are priced by then; without it none goes"),
    "regularizer": (
        str,
        "",
        "a penalty under which the dense network is trained before the cut, with --method criterion and --path-epochs",
    ),
    "regularization": (
        _number_or_auto,
        "R",
        "its strength (auto: what the channels need that go at the target, in these epochs)",
    ),
    "criterion_spread": (
        str,
        "",
        "the same share of each layer goes (uniform), the cheapest of all (global), or the most is kept (knapsack)",
    ),
    "path_epochs": (
        float,
        "E",
        "epochs of the path, shared by its pieces, or of a regularizer (0: networks at equal cost, untrained)",
    ),
    "finetune_epochs": (float, "E", "epochs of fine-tuning after the cut"),
    "path_points": (int, "N", "points of the path, each a network"),
    "depth_share": (float, "S", "share of the saving that depth may take, 0 (width only) to 1 (depth only)"),
    "depth_rule": (
        str,
        "",
        "how depth ends: where networks at the target are no better with more blocks (equal-cost), by the paper's"
        " paired one-standard-error rule, or at its whole share",
    ),
    "penalty_weights": (
        str,
        "",
        "weights of the penalty: by sensitivity (fisher), the paper's (amsc), or its ablations",
    ),
    "theta_hat": (str, "", "what the adaptive weights are taken from"),
    "currency": (str, "", "what a group's size is counted in"),
    "reconstruction": (
        int,
        "N",
        "after every cut the layers behind it are refitted to the network before it, on N unlabelled examples (0: no)",
    ),
    "prices": (
        str,
        "",
        "a scan orders channels by what losing them costs after reconstruction (obs), or before it (fisher)",
    ),
    "batch_size": (int, "N", "examples per step"),
    "dense_learning_rate": (float, "R", "learning rate of the dense epochs, cosine to zero"),
    "path_learning_rate": (float, "R", "learning rate on the path"),
    "finetune_learning_rate": (float, "R", "learning rate of fine-tuning, cosine to zero"),
    "optimizer": (str, "", "of all training; adamw needs learning rates of its own, such as 0.001"),
    "momentum": (float, "M", "momentum of SGD, first beta of AdamW"),
    "weight_decay": (float, "D", "weight decay"),
    "label_smoothing": (float, "S", "label smoothing of all training"),
    "distillation": (float, "W", "weight of the dense network's soft targets in fine-tuning, 0 to 1"),
    "temperature": (float, "T", "temperature of these soft targets"),
    "ema": (float, "D", "fine-tuning ends with the moving average of its weights, of this decay per step (0: none)"),
    "precision": (
        str,
        "",
        "of training: float32, bfloat16 under autocast, or what is faster here in a short trial (auto)",
    ),
    "limit": (int, "N", "use at most N training examples"),
    "flip": (str, "", "which training images of folder: and parquet: are mirrored: at random, in turns, or none"),
    "score_every": (
        _number_or_auto,
        "E",
        "score the validation split every E epochs of training, to be looked at alone (0: never; auto: four times, or"
        " less, within 5 %% of the time)",
    ),
}
FIELDS = {"penalty_weights": "weights"}
NOTHING_SAID = {"limit": "all", "distillation": "0.9 for classification, else 0"}
COMMON_SETTINGS = ("seed", "deterministic", "device", "threads", "channels_last", "capture")
TASK_HELP = "classification (the default), regression, segmentation, imitation (needs no labels) or module:function"
MODEL_HELP = "built-in, torchvision:NAME, timm:NAME[?pretrained], hf:NAME or hf:FOLDER, or module:function"
LIMITS = ("keep", "only", "streams", "inexact", "plain", "round_to", "min_channels", "minimum", "uniform")


def add_object_flags(parser: argparse.ArgumentParser) -> None:
    """--model, --data, --task: what a run from Python was handed, by name."""
    group = parser.add_argument_group("of a run that was started from Python with objects")
    add_network_flag(group)
    group.add_argument("--data", metavar="DATA", help="its data: digits, parquet:PATH, folder:PATH or module:function")
    group.add_argument("--task", metavar="TASK", help=f"its task: {TASK_HELP}")


def add_network_flag(group: Any) -> None:
    """--model, beside the run folder that stands alone."""
    group.add_argument(
        "--model",
        dest="network",
        metavar="MODEL",
        help=f"the dense network of a run from Python: {MODEL_HELP}",
    )


def add_limit_flags(parser: argparse.ArgumentParser) -> None:
    """--keep, --only, --streams, --inexact, --plain, --uniform, --round-to, --min-channels, --minimum: what may not
    go."""
    values = Settings()
    group = parser.add_argument_group("what may not go")
    group.add_argument(
        "--keep",
        metavar="GLOB",
        action="append",
        help="leave these groups, blocks, modules or parameters alone; `*` crosses dots (may be repeated)",
    )
    group.add_argument("--only", metavar="GLOB", action="append", help="leave everything else alone (may be repeated)")
    group.add_argument(
        "--streams",
        action=argparse.BooleanOptionalAction,
        help="let channels of residual streams go as well, with --method gates and in scans (default: no)",
    )
    group.add_argument(
        "--inexact",
        action=argparse.BooleanOptionalAction,
        help="let streams under LayerNorms and other channels go as well that no proof covers, but judged after "
        "reconstruction; not with a penalty (default: no)",
    )
    group.add_argument(
        "--plain",
        action=argparse.BooleanOptionalAction,
        help="let plain convolutions (VGG) go as well, which the path draws to the identity first (default: no)",
    )
    group.add_argument(
        "--uniform",
        action=argparse.BooleanOptionalAction,
        help="leave alike layers alike: as many heads, hidden units, ... in each, and layers go whole, so that a "
        "configuration of transformers can describe the outcome (default: no)",
    )
    group.add_argument(
        "--round-to",
        metavar="N",
        type=_multiple,
        help="what is left of a group that loses channels is a multiple of N (1: any number), or of 8 and in narrow "
        f"groups finer (auto) (default: {values.round_to})",
    )
    group.add_argument(
        "--min-channels",
        metavar="N",
        type=int,
        help=f"at least N channels are left in each group (default: {values.min_channels})",
    )
    group.add_argument(
        "--minimum",
        metavar="GLOB=N",
        action="append",
        help="at least N channels are left in the groups, modules or parameters that GLOB names (may be repeated)",
    )


def _multiple(text: str) -> int | str:
    """A number, or the word for the usual ones."""
    if text != "auto" and not text.removeprefix("-").isdecimal():
        raise argparse.ArgumentTypeError(f"expected auto or a whole number, 1 or more; got {text!r}")
    return text if text == "auto" else int(text)


def add_run_flags(parser: argparse.ArgumentParser, *, out: str, defaults: Settings | None = None) -> None:
    """--out, --settings, --seed, --device, --threads, --deterministic; `out` says what the folder gets."""
    values = defaults or Settings()
    group = parser.add_argument_group("run")
    group.add_argument("--out", metavar="FOLDER", type=Path, help=out)
    group.add_argument(
        "--settings", metavar="FILE", type=Path, help="settings file (TOML), such as a run's settings.toml; flags win"
    )
    group.add_argument("--seed", metavar="N", type=int, help=f"seed of everything random (default: {values.seed})")
    group.add_argument("--device", metavar="DEVICE", help=f"cpu, cuda, cuda:N or mps (default: {values.device})")
    group.add_argument(
        "--threads", metavar="N", type=int, help=f"threads of torch; 0: torch decides (default: {values.threads})"
    )
    group.add_argument(
        "--channels-last",
        action=argparse.BooleanOptionalAction,
        help="train 2-d convolutions in the channels-last layout, faster where the model runs in it (default: no)",
    )
    group.add_argument(
        "--capture",
        action=argparse.BooleanOptionalAction,
        help="record training steps and replay them as CUDA graphs (default: no)",
    )
    group.add_argument(
        "--deterministic",
        action=argparse.BooleanOptionalAction,
        help="only algorithms that give the same bits each time (default: no)",
    )


def add_effort_flag(parser: argparse.ArgumentParser) -> None:
    """--effort: a set of settings, on which the other flags go."""
    words = "how much to train: from no training at all to the paper's schedule; --help shows the defaults of standard"
    parser.add_argument("--effort", choices=tuple(EFFORTS), help=words)


def add_setting_flags(
    parser: argparse.ArgumentParser, *, names: Sequence[str] = tuple(SETTING_FLAGS), defaults: Settings | None = None
) -> None:
    """One flag for each of `names`, with its default in the help."""
    values = defaults or Settings()
    group = parser.add_argument_group("choices")
    for name in names:
        kind, placeholder, words = SETTING_FLAGS[name]
        field = FIELDS.get(name, name)
        default = getattr(values, field)
        shown = NOTHING_SAID[name] if default is None else default or (default if default == 0 else "none")
        choices = tuple(word for word in CHOICES.get(field, ()) if word)
        options: dict[str, Any] = {"metavar": placeholder} if placeholder else {"choices": choices}
        group.add_argument(
            "--" + name.replace("_", "-"), dest=name, type=kind, help=f"{words} (default: {shown})", **options
        )


def run_settings(args: argparse.Namespace, *, defaults: Settings | None = None) -> RunSettings:
    """The run that was asked for: `defaults` (those of an effort if one is given), under the settings file, under the
    flags.

    Raises:
        SettingsError: the file cannot be read, or a value is impossible.
        UsageError: an effort is given beside a file, or the file names a function that the flags do not.
    """
    given = vars(args)
    if given.get("effort"):
        if given.get("settings"):
            raise UsageError("--effort and --settings both say all choices: give one of them, and flags for the rest")
        defaults = Settings.of(given["effort"])
    run = RunSettings(settings=defaults or Settings())
    if given.get("settings"):
        run = read_settings(given["settings"])
        refuse_functions(given["settings"], run, given, model="")
    names = [*COMMON_SETTINGS, *SETTING_FLAGS, *LIMITS]
    choices = {FIELDS.get(name, name): given.get(name) for name in names}
    choices |= {name: tuple(value) for name, value in choices.items() if isinstance(value, list)}
    fields = {field.name for field in dataclasses.fields(RunSettings)} - {"settings"}
    return run.changed({name: given.get(name) for name in fields}, choices)


# What a run needs: what names it on the command line, and what a run from Python had in its place.
NEEDED = {
    "model": ("MODEL", "a model of class {}", "MODEL, such as package.module:function"),
    "data": ("--data DATA", "data called {!r}", "--data, such as package.module:function"),
    "task": ("--task TASK", "a task of class {}", "--task package.module:function"),
    "target": ("--target T", "", ""),
}


def check_named(run: RunSettings, needs: Sequence[str] = tuple(NEEDED)) -> None:
    """Refuse a run that lacks one of the parts that it needs; a task is needed where one from Python had its own.

    Raises:
        UsageError: one is missing; of a run that was started from Python with objects the message says which.
    """
    lost = [key for key in needs if key in run.python and getattr(run, key) is None]
    if lost:
        objects = " and ".join(NEEDED[key][1].format(run.python[key]) for key in lost)
        flags = " and ".join(NEEDED[key][2] for key in lost)
        trained = (
            "; the function for MODEL returns the trained network, or give its --weights" if "model" in lost else ""
        )
        names = " and ".join(NEEDED[key][0] for key in lost)
        raise UsageError(
            f"{names} {'are' if len(lost) > 1 else 'is'} missing: the settings file is of a run that was started from "
            f"Python with {objects}, which it cannot hold; say what makes them again: {flags}{trained}"
        )
    for key in needs:
        if key != "task":
            required(getattr(run, key), NEEDED[key][0])


def required(value: str | None, words: str) -> str:
    """`value`, or a usage error that says what is missing."""
    if value is None:
        raise UsageError(f"{words} is missing: give it on the command line or in the settings file")
    return value
