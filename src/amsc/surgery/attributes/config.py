"""Configurations of transformers models: a module's own copy, and the model's where it can express the cut."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from amsc.borrowing import forked
from amsc.surgery.attributes import names
from amsc.surgery.attributes.attention import HEAD_NAMES, Kinds, head_changes
from amsc.surgery.attributes.values import config_sizes, is_config, stored_sizes
from amsc.surgery.attributes.widths import INNER, new_sizes, uncut_sizes
from amsc.surgery.plan import AxisCut

__all__ = ["ConfigChanges", "config_changes", "follow_config", "own_config"]

# Where in the model's configuration ("" for itself, else the attribute that holds it): field -> new value.
ConfigChanges = dict[str, dict[str, int]]


def own_config(module: nn.Module, kinds: Kinds) -> None:
    """Give `module` a copy of its configuration with new sizes of heads, if its forward reads them from there."""
    read = config_sizes(module)
    if not head_changes(kinds, read, ()):
        return
    own: Any = copy.copy(getattr(module, "config", None))
    told = {name: size for name, size in stored_sizes(own).items() if name in HEAD_NAMES}
    for name, new in head_changes(kinds, {**told, **read}, ()).items():
        setattr(own, name, new)
    vars(module)["config"] = own


def config_changes(
    model: nn.Module, kinds: Mapping[nn.Module, Kinds], owned: Mapping[nn.Module, tuple[AxisCut, ...]]
) -> ConfigChanges:
    """What the configuration of a transformers model would have to say, where all layers agree; {} otherwise."""
    if not (hasattr(model, "save_pretrained") and is_config(getattr(model, "config", None))):
        return {}
    users = _users(model)
    found: ConfigChanges = {}
    for where, config in _configs(model.config):
        modules = users.get(id(config), [])
        stored = stored_sizes(config)
        changes = _agreed_heads(stored, modules, kinds) | _agreed_widths(stored, modules, owned)
        if changes:
            found[where] = changes
    return found


def follow_config(model: nn.Module, changes: ConfigChanges) -> None:
    """Let the configuration say the new sizes if a model built from it is this one, in every shape and number that
    its modules store; otherwise it stays."""
    if not changes:
        return
    config = copy.deepcopy(model.config)
    _set(config, changes)
    try:
        with forked(), torch.device("meta"):
            built = type(model)(config)
    except Exception:  # whatever the class says about sizes that it was not written for
        return
    if _described(built) == _described(model):
        _set(model.config, changes)


def _configs(config: Any) -> Iterator[tuple[str, Any]]:
    """(attribute that holds it, configuration), the configuration itself first."""
    yield "", config
    yield from ((name, value) for name, value in vars(config).items() if is_config(value))


def _set(config: Any, changes: ConfigChanges) -> None:
    holders = dict(_configs(config))
    for where, fields in changes.items():
        for name, new in fields.items():
            setattr(holders[where], name, new)


def _users(model: nn.Module) -> dict[int, list[nn.Module]]:
    """By the identity of a configuration the modules that it describes: those that hold it, and what lies in them."""
    users: dict[int, list[nn.Module]] = {}
    holder: dict[str, Any] = {"": model.config}
    for path, module in model.named_modules():
        own = getattr(module, "config", None)
        holder[path] = own if is_config(own) else holder[path.rpartition(".")[0]]
        users.setdefault(id(holder[path]), []).append(module)
    return users


def _agreed_heads(
    stored: Mapping[str, int], modules: list[nn.Module], kinds: Mapping[nn.Module, Kinds]
) -> dict[str, int]:
    """Fields about heads that all attention modules of the same classes would change in the same way."""
    changed = [module for module in modules if module in kinds]
    classes = {type(module) for module in changed}
    alike = [
        module
        for module in modules
        if type(module) in classes and HEAD_NAMES & {**stored_sizes(module), **config_sizes(module)}.keys()
    ]
    if not changed or len(alike) > len(changed):
        return {}
    told = {name: size for name, size in stored.items() if name in HEAD_NAMES}
    first, *others = (head_changes(kinds[module], told, ()) for module in changed)
    return first if all(other == first for other in others) else {}


def _agreed_widths(
    stored: Mapping[str, int], modules: list[nn.Module], owned: Mapping[nn.Module, tuple[AxisCut, ...]]
) -> dict[str, int]:
    cuts = {module: owned.get(module, ()) for module in modules}
    new, left = new_sizes(cuts), uncut_sizes(cuts)
    known = INNER | names.STREAM_SIZES
    return {name: new[old] for name, old in stored.items() if name in known and old in new and old not in left}


def _described(model: nn.Module) -> dict[str, Any]:
    """Shapes of all tensors and the numbers of all modules, by name."""
    tensors: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    shapes: dict[str, Any] = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for path, module in model.named_modules():
        shapes[f"{path}()"] = {n: v for n, v in vars(module).items() if type(v) in (int, float)}
    return shapes
