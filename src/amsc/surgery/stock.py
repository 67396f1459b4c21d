"""A cut model of transformers in the library's own words: the configuration whose stock model has these tensors."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from amsc.borrowing import forked
from amsc.surgery.apply import plan_of
from amsc.surgery.attributes.attention import HEAD_NAMES
from amsc.surgery.attributes.values import is_config, stored_sizes
from amsc.surgery.attributes.widths import INNER

__all__ = ["Stock", "as_stock", "is_of_transformers"]

HEADS = ("num_attention_heads", "num_key_value_heads")
HEAD_SIZE = "head_dim"

Shapes = dict[str, tuple[float, ...]]
"""Tensors with their shapes, and numbers that modules store, each alone in a tuple."""
Move = tuple[tuple[Any, str, Any], ...]
"""Changes of a configuration that belong together: (which of its parts, key, value)."""


@dataclass(frozen=True)
class Stock:
    """A configuration, under which name each of its model's tensors stands in the cut model, and what is wrong with it:
    the tensors that it gives otherwise, "" if there are none."""

    config: Any
    names: Mapping[str, str]
    misfit: str


def is_of_transformers(model: nn.Module) -> bool:
    """Whether this is a model as transformers has them."""
    return hasattr(model, "save_pretrained") and is_config(getattr(model, "config", None))


def as_stock(model: nn.Module) -> Stock:
    """The configuration of which the model's class makes a network with these tensors, as near as one was found.

    Layers that are gone from a list are left out and the others counted anew. Then the configuration is changed step by
    step, each time in what brings most tensors to their shapes: the length of a list, a width, the number of heads with
    their size kept, or the size of heads.
    """
    gone = _layers_gone(() if (plan := plan_of(model)) is None else plan.blocks)
    names = {_counted_anew(name, gone): name for name in model.state_dict()}
    wanted = {_counted_anew(name, gone): shape for name, shape in _described(model).items()}
    config = copy.deepcopy(model.config)
    _shorten(config, model, gone)
    shapes = _shapes(model, config)
    while wrong := _differing(shapes, wanted):
        tried = [(changed, _shapes(model, changed)) for changed in _changed(config, _moves(config, shapes, wanted))]
        best, found = min(tried, key=lambda one: len(_differing(one[1], wanted)), default=(config, shapes))
        if len(_differing(found, wanted)) >= len(wrong):
            break
        config, shapes = best, found
    return Stock(config, names, _words(shapes, wanted, names))


def _layers_gone(blocks: Iterable[str]) -> dict[str, frozenset[int]]:
    """List of layers -> the numbers of those that are gone."""
    gone: dict[str, set[int]] = {}
    for block in blocks:
        where, _, number = block.rpartition(".")
        if number.isdigit():
            gone.setdefault(where, set()).add(int(number))
    return {where: frozenset(numbers) for where, numbers in gone.items()}


def _counted_anew(name: str, gone: Mapping[str, frozenset[int]]) -> str:
    """The name of a tensor once the layers that are gone are no longer counted."""
    for where, numbers in gone.items():
        if name.startswith(f"{where}."):
            number, _, rest = name[len(where) + 1 :].partition(".")
            left = int(number) - sum(other < int(number) for other in numbers)
            return f"{where}.{left}.{rest}"
    return name


def _shorten(config: Any, model: nn.Module, gone: Mapping[str, frozenset[int]]) -> None:
    """Say how many layers are left, wherever a key has the length of a list that lost some; what a configuration lists
    layer by layer loses the same entries."""
    for where, numbers in gone.items():
        length = len(model.get_submodule(where))  # type: ignore[arg-type]
        for part in _parts(config):
            for key, value in list(vars(part).items()):
                if isinstance(value, list | tuple) and len(value) == length:
                    kept = [entry for number, entry in enumerate(value) if number not in numbers]
                    _set(part, key, type(value)(kept))
                elif type(value) is int and value == length and "layer" in key:
                    _set(part, key, length - len(numbers))


def _moves(config: Any, shapes: Shapes, wanted: Shapes) -> Iterator[Move]:
    """What may be changed of the configuration to bring some tensor to its shape."""
    sizes = {
        pair
        for name in shapes.keys() & wanted.keys()
        for pair in zip(shapes[name], wanted[name], strict=len(shapes[name]) == len(wanted[name]))
        if pair[0] != pair[1]
    }
    ratios = {Fraction(new, old) for old, new in sizes if old and isinstance(old, int) and isinstance(new, int)}
    for part in _parts(config):
        for key, value in vars(part).items():
            is_left_open = value is None and key in INNER  # such as n_inner of GPT-2
            fits = (new for old, new in sizes if is_left_open or (type(value) is int and value == old))
            yield from (((part, key, new),) for new in fits)
        if (size := _head_size(part)) is None:
            continue
        for ratio in ratios:
            heads = {key: getattr(part, key) * ratio for key in HEADS if type(getattr(part, key, None)) is int}
            if all(number.denominator == 1 and number >= 1 for number in heads.values()):
                yield ((part, HEAD_SIZE, size), *((part, key, int(number)) for key, number in heads.items()))
            if (smaller := size * ratio).denominator == 1:
                yield ((part, HEAD_SIZE, int(smaller)),)


def _head_size(config: Any) -> int | None:
    """The size of a head; None where the configuration knows no heads."""
    said = getattr(config, HEAD_SIZE, None)
    if type(said) is int:
        return said
    width, heads = getattr(config, "hidden_size", None), getattr(config, HEADS[0], None)
    return width // heads if type(width) is int and type(heads) is int and heads else None


def _changed(config: Any, moves: Iterable[Move]) -> Iterator[Any]:
    """A changed copy of the configuration for each of the moves."""
    places = {id(part): number for number, part in enumerate(_parts(config))}
    for move in moves:
        other = copy.deepcopy(config)
        parts = list(_parts(other))
        for part, key, value in move:
            _set(parts[places[id(part)]], key, value)
        yield other


def _set(config: Any, key: str, value: Any) -> None:
    """Set a key as it stands there: configurations of newer transformers may look at all keys at once, and refuse."""
    vars(config)[getattr(type(config), "attribute_map", {}).get(key, key)] = value


def _parts(config: Any) -> Iterator[Any]:
    """A configuration, and those in it."""
    yield config
    yield from (part for part in vars(config).values() if is_config(part))


def _shapes(model: nn.Module, config: Any) -> Shapes:
    """`_described` of a stock model, made without memory; nothing where the class refuses the configuration."""
    try:
        with forked(), torch.device("meta"):
            built = type(model)(type(config).from_dict(config.to_dict()))  # as it will be read from a file
    except Exception:  # whatever the class says about sizes that it was not written for
        return {}
    return _described(built)


def _described(model: nn.Module) -> Shapes:
    """Shapes of all tensors, and what modules with heads store about them: as many rows may be fewer heads or smaller
    ones, and a scale that was taken from their old size is another than the stock model takes from the new one."""
    state = model.state_dict().items()
    shapes: Shapes = {name: tuple(tensor.shape) for name, tensor in state if isinstance(tensor, Tensor)}
    for path, module in model.named_modules():
        heads = {name: size for name, size in stored_sizes(module).items() if name in HEAD_NAMES}
        scales = {name: value for name, value in vars(module).items() if type(value) is float} if heads else {}
        shapes |= {f"{path}.{name}": (value,) for name, value in {**heads, **scales}.items()}
    return shapes


def _differing(shapes: Shapes, wanted: Shapes) -> list[str]:
    return sorted(name for name in {*shapes, *wanted} if shapes.get(name) != wanted.get(name))


def _words(shapes: Shapes, wanted: Shapes, names: Mapping[str, str]) -> str:
    """What is wrong, by the first tensor of which that can be said."""
    wrong = _differing(shapes, wanted)
    if not wrong:
        return ""
    name = wrong[0]
    own = f"is {_shown(wanted[name])} here" if name in wanted else "is not there"
    stock = f"would be {_shown(shapes[name])}" if name in shapes else "is not known"
    more = f" ({len(wrong)} tensors or numbers differ)" if len(wrong) > 1 else ""
    return f"{names.get(name, name)} {own}, and {stock} in the stock model{more}"


def _shown(value: tuple[float, ...]) -> str:
    return f"{value[0]:g}" if len(value) == 1 else str(value)
