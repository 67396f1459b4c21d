"""What is refused before any work: targets, models, data, tasks and settings that cannot be, or not together."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from amsc.borrowing import borrowed, call_arguments, copied, run_model
from amsc.data import Data, Unlabelled, batch_size, data_line, moved, spread_batches
from amsc.errors import AmscWarning, DataError, InputError, ModelError, SettingsError, TargetError
from amsc.jobs.imitating import check_imitation
from amsc.limits.target import Target, parse_target
from amsc.settings import EFFORTS, Settings
from amsc.tasks import Classification, Imitation, Task, logits_of
from amsc.training import device_of, forward, scores_of, told_of
from amsc.words.amounts import SHARES

__all__ = [
    "check_data",
    "check_drop",
    "check_free",
    "check_kinds",
    "check_layout",
    "check_listener",
    "check_plain",
    "check_regularizer",
    "check_trained",
    "chosen_settings",
    "chosen_target",
    "chosen_task",
]


def chosen_task(task: Task | None, settings: Settings) -> Task:
    """The task of a run: the given one, or classification.

    Raises:
        SettingsError: it is no task, or the settings ask for what only classification, or only amsc's own, has.
    """
    if task is None:
        return Classification(settings.label_smoothing)
    if isinstance(task, type):
        raise SettingsError(f"task: expected an object, got the class {task.__name__}; write task={task.__name__}()")
    if not isinstance(task, Task):
        raise SettingsError(
            f"task: expected an object with name, higher_is_better, loss and per_example, such as "
            f"amsc.tasks.Classification(); got {task!r} (amsc.tasks.open_task makes a task of its name)"
        )
    if settings.label_smoothing:
        raise SettingsError(
            f"label_smoothing={settings.label_smoothing} is for the task that amsc makes; a task of yours has its own: "
            "give that one the smoothing, and the settings none"
        )
    if isinstance(task, Imitation):
        check_imitation(settings)
    if settings.distillation and not isinstance(task, Classification):
        raise SettingsError(
            f"distillation={settings.distillation} needs logits of classes, but the task is {type(task).__name__}; "
            "leave distillation at 0"
        )
    return task


def chosen_target(target: Any) -> Target:
    """The target, also as it is typed: "macs=50%".

    Raises:
        TargetError: it is none.
    """
    target = parse_target(target) if isinstance(target, str) else target
    if not isinstance(target, Target):
        raise TargetError(f"target must be an amsc.Target, such as amsc.Target(macs=0.5); got {target!r}")
    return target


def check_drop(target: Target, task: Task) -> None:
    """Refuse a drop that lets all of a share such as accuracy go, and percentages of what is no share."""
    drop = target.most_lost
    if drop is None:
        return
    if task.name in SHARES and drop >= 1:
        raise TargetError(
            f"drop={target.drop} lets all of the {task.name} go: it lies between 0 and 1; for {drop:g} of its points "
            f'write drop={drop / 100:g} or drop="{drop:g}%"'
        )
    if task.name not in SHARES and isinstance(target.drop, str) and target.drop.endswith("%"):
        raise TargetError(
            f"drop={target.drop}: points are for scores that are shares ({', '.join(SHARES)}); how far the {task.name} "
            f"may get worse is said in its own units, such as drop={drop:g}"
        )


def check_free(target: Target, data: Data, task: Task) -> None:
    """Refuse to look for what loses nothing where that means nothing.

    Raises:
        TargetError: the dense network is compared with itself, or there are too few examples for a standard error.
    """
    if not target.is_free:
        return
    if isinstance(task, Imitation):
        raise TargetError(
            "free keeps what is within one standard error of the best, but with the task imitation the best is the "
            "dense network itself, at distance 0 on every example, and no smaller network is within any standard "
            "error of that; say how far from it the outcome may be, such as drop=0.02"
        )
    if data.num_examples("validation") < 2:
        raise TargetError(
            f"free compares networks example by example, and the validation split of {data.name} has "
            f"{data.num_examples('validation')}; give some hundred, or say how small it must be (macs=50%)"
        )


def chosen_settings(settings: Any, usual: Settings) -> Settings:
    """The settings of a run: the given ones, or the usual ones.

    Raises:
        SettingsError: they are no settings.
    """
    if settings is None:
        return usual
    if not isinstance(settings, Settings):
        raise SettingsError(
            f"settings: expected an amsc.Settings, such as amsc.Settings(path_epochs=4); got {_kind(settings)}"
            f"{'; write Settings(**settings)' if isinstance(settings, dict) else ''}"
            f"{f'; write amsc.Settings.of({settings!r})' if isinstance(settings, str) and settings in EFFORTS else ''}"
        )
    return settings


def check_plain(settings: Settings, target: Target) -> None:
    """Refuse settings under which no plain convolution could go.

    Raises:
        SettingsError: they are to go, but nothing draws them to the identity.
    """
    if not settings.plain or settings.depth_rule != "equal-cost":
        return
    cure = "give path_epochs (--path-epochs 8) and depth_rule='one-standard-error' or 'share'"
    if target.is_free:
        cure = "leave plain out, or say how small the network must be (macs=50%)"
    raise SettingsError(
        "plain: convolutions are drawn to the identity on a path that trains, and networks at equal cost are made "
        f"without one; {cure}"
    )


def check_regularizer(settings: Settings, target: Target) -> None:
    """Refuse a regularizer for a target that it cannot be trained for.

    Raises:
        SettingsError: the target is free, or its strength is to be found and the target does not say how much goes.
    """
    if not settings.regularizer:
        return
    if target.is_free:
        raise SettingsError(
            f"regularizer={settings.regularizer!r} trains the network first, and with the target free nothing is "
            "trained before the cut; leave the regularizer out, or say how small the network must be (macs=50%)"
        )
    if target.drop is not None and settings.regularization == "auto":
        raise SettingsError(
            "regularization: auto is the strength that brings channels near zero which go at the target, and drop does "
            "not say how many they are; give a strength (--regularization 0.01), or a target that is a cost, such as "
            "macs=50%"
        )


def check_listener(progress: Any) -> None:
    """Refuse what cannot hear how far the work is."""
    is_object = not isinstance(progress, type) and callable(getattr(progress, "update", None))
    if not (progress is None or isinstance(progress, bool) or is_object):
        raise SettingsError(
            f"progress: expected True, False or an object with update(phase, step, steps, **values), as "
            f"amsc.progress.Progress describes it; got {_kind(progress)}"
        )


DATA_NAMES = ("batches", "num_batches", "num_examples", "example_inputs", "name", "num_classes")


def check_kinds(model: Any, data: Any, settings: Settings) -> None:
    """Refuse a model or data of the wrong kind, and settings that name another device than the model's."""
    if not isinstance(model, nn.Module):
        raise ModelError(f"model must be a torch.nn.Module, got {_kind(model)}")
    if isinstance(data, type) or not all(hasattr(data, name) for name in DATA_NAMES):
        raise DataError(
            f"data must be an object with the methods of amsc.data.Data, {_kind(data)} is not; {data_line(data)}"
        )
    devices = {p.device.type for p in model.parameters()}
    wanted = torch.device(settings.device).type
    if devices and devices != {wanted}:
        raise SettingsError(
            f"the model is on {', '.join(sorted(devices))}, settings.device is {settings.device}; "
            f"move the model with model.to({settings.device!r}), or set Settings(device=...) to where it is"
        )


def check_trained(model: nn.Module) -> list[str]:
    """The names of the frozen parameters.

    Raises:
        ModelError: all are frozen.
    """
    parameters = dict(model.named_parameters())
    frozen = [name for name, parameter in parameters.items() if not parameter.requires_grad]
    if frozen and len(frozen) == len(parameters):
        raise ModelError(
            f"all parameters of {type(model).__name__} are frozen (requires_grad=False), and making it smaller means "
            "training it; call model.requires_grad_(True), or use amsc.scan, which trains nothing"
        )
    return frozen


def _kind(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def check_layout(model: nn.Module, example_inputs: Any, settings: Settings) -> None:
    """Refuse `channels_last` for a model that does not run in that layout."""
    if not settings.channels_last:
        return
    trial = copied(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        with borrowed(trial):
            run_model(trial, example_inputs)
    except InputError as error:
        raise SettingsError(f"channels_last: the model does not run in that layout; leave it out ({error})") from error


# What each split of the data is for.
PURPOSES = {"train": "to learn from", "validation": "to choose by", "test": "for the scores it reports"}


def check_data(
    model: nn.Module, data: Data, task: Task, example_inputs: Any, splits: Sequence[str] = tuple(PURPOSES)
) -> None:
    """Refuse data that the model or the task cannot use, before any time is spent on them; warn of example inputs of
    another size."""
    for split in splits:
        if data.num_examples(split) == 0:
            raise DataError(
                f"the {split} split of {data.name} is empty; amsc needs one {PURPOSES[split]} "
                f"(LoaderData: pass {split}=)"
            )
    judged = "validation" if "validation" in splits else "train"
    for split in splits:
        for inputs, target in spread_batches(data, split, 1):
            _check_batch(model, inputs, f"a batch of the {split} split of {data.name}")
            if isinstance(target, Unlabelled):
                raise DataError(_words_on_labels(data, task))
            if split == judged:
                _check_task(model, task, inputs, target)
                _warn_of_other_sizes(example_inputs, inputs, batch_size(target))
    with borrowed(model), told_of(f"the first examples of the train split of {data.name}"):
        output = logits_of(run_model(model, data.example_inputs(2)))
    if not isinstance(task, Classification) or data.num_classes is None:
        return
    if data.num_classes < 2:
        raise DataError(f"{data.name} has a single class: there is nothing to tell apart; give data of two or more")
    if not isinstance(output, Tensor) or output.dim() != 2:
        came = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ModelError(
            f"classification expects the model to return one tensor of shape (batch, classes), got {came}; wrap the "
            "model so that it returns the logits alone"
        )
    if output.shape[1] != data.num_classes:
        raise DataError(
            f"the model tells {output.shape[1]} classes apart, {data.name} has {data.num_classes}; build the model "
            f"with {data.num_classes} classes, or give the data it was trained for"
        )


def _check_batch(model: nn.Module, inputs: Any, what: str) -> None:
    """Refuse a batch that the model does not take."""
    with borrowed(model), told_of(what):
        forward(model, inputs, device_of(model))


def _words_on_labels(data: Data, task: Task) -> str:
    return (
        f"{data.name} has no labels, and {type(task).__name__.lower()} needs them; give data with labels, or the task "
        "imitation (--task imitation, task=amsc.tasks.Imitation()), which compares with the dense network instead. "
        "Labels are read from a column label, labels or fine_label (parquet:), or from a folder per class (folder:)"
    )


def _check_task(model: nn.Module, task: Task, inputs: Any, target: Any) -> None:
    """Refuse a task whose loss or score of a first batch is no number."""
    device = device_of(model)
    with borrowed(model):
        output = forward(model, inputs, device)
        loss, scores = task.loss(output, moved(target, device)), scores_of(task, output, moved(target, device))
    for name, value in (("loss", loss), (task.name, scores)):
        if not isinstance(value, Tensor) or not bool(torch.isfinite(value).all()):
            raise DataError(f"the {name} of the first batch must be finite, it is {value}; check the task and the data")
    if loss.numel() != 1:
        raise DataError(f"the loss of a batch must be one number, got shape {tuple(loss.shape)}; check the task")


def _warn_of_other_sizes(example_inputs: Any, inputs: Any, batch: int) -> None:
    """Warn where a tensor of the example differs from the data's in more than how many examples it holds."""
    for example, other in zip(_leaves(example_inputs), _leaves(inputs), strict=False):
        if isinstance(example, Tensor) and isinstance(other, Tensor) and not _differ_in_batch(example, other, batch):
            warnings.warn(
                f"the example inputs have shape {tuple(example.shape)}, the data's batches {tuple(other.shape)}: MACs, "
                "latency and memory are counted for the example inputs, scores come from the data; give an example of "
                "the data's size, such as data.example_inputs()",
                AmscWarning,
                stacklevel=5,
            )
            return


def _leaves(inputs: Any) -> list[Any]:
    args, kwargs = call_arguments(inputs)
    return pytree.tree_leaves((args, dict(sorted(kwargs.items()))))


def _differ_in_batch(example: Tensor, other: Tensor, batch: int) -> bool:
    """Whether the shapes are the same but for one axis that counts the examples of the other."""
    if example.ndim != other.ndim:
        return False
    differ = [size for own, size in zip(example.shape, other.shape, strict=True) if own != size]
    return not differ or differ == [batch]
