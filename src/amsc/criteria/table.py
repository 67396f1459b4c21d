"""The criteria by name, and the prices that they give."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from amsc.criteria import by_blocks, by_gradients, by_maps, by_weights
from amsc.criteria.scene import Scene
from amsc.errors import DataError, SettingsError
from amsc.structure.structure import Block, ChannelGroup
from amsc.words.nearest import nearest

__all__ = ["BLOCKS", "CHANNELS", "ChannelCriterion", "block_prices", "channel_prices", "found"]

Known = TypeVar("Known")
Part = TypeVar("Part", Block, ChannelGroup)
Price = TypeVar("Price", Tensor, float)


@dataclass(frozen=True)
class ChannelCriterion:
    """How channels are priced, and how the cut spreads over the layers where nothing else is said: "uniform" (the same
    share of each) or "global" (the cheapest of all). `is_comparable`: prices of different layers can be compared as
    they are; those that cannot are divided by the mean of their layer for a global ranking."""

    price: Callable[[Scene, ChannelGroup], Tensor]
    spread: str
    is_comparable: bool


CHANNELS: Mapping[str, ChannelCriterion] = {
    "random": ChannelCriterion(by_weights.random, "uniform", is_comparable=True),
    "l1": ChannelCriterion(by_weights.l1, "uniform", is_comparable=False),
    "l2": ChannelCriterion(by_weights.l2, "uniform", is_comparable=False),
    "batchnorm-scale": ChannelCriterion(by_weights.batchnorm_scale, "global", is_comparable=True),
    "geometric-median": ChannelCriterion(by_weights.geometric_median, "uniform", is_comparable=False),
    "lamp": ChannelCriterion(by_weights.lamp, "global", is_comparable=True),
    "group-norm": ChannelCriterion(by_weights.group_norm, "global", is_comparable=False),
    "taylor": ChannelCriterion(by_gradients.taylor, "global", is_comparable=True),
    "fisher": ChannelCriterion(by_gradients.fisher, "global", is_comparable=True),
    "hrank": ChannelCriterion(by_maps.hrank, "uniform", is_comparable=False),
    "chip": ChannelCriterion(by_maps.chip, "uniform", is_comparable=False),
    "hsic": ChannelCriterion(by_maps.hsic, "global", is_comparable=True),
}
BLOCKS: Mapping[str, Callable[[Scene, Block], float]] = {
    "cka": by_blocks.cka,
    "shortgpt": by_blocks.shortgpt,
    "dbp": by_blocks.dbp,
    "entropy": by_blocks.entropy,
    "taylor": by_blocks.block_taylor,
}


def channel_prices(scene: Scene, criterion: str) -> dict[str, Tensor]:
    """The price of every channel that may go, by the name of its group; the cheapest go first. Shapes: channel each,
    float64 on the CPU.

    Raises:
        SettingsError: there is no such criterion, or it cannot price a group.
        DataError: a price is not a finite number.
    """
    price = found(CHANNELS, "criterion", criterion).price
    priced = _priced("criterion", criterion, scene.groups, lambda group: price(scene, group))
    return {name: values.cpu().double() for name, values in priced.items()}


def block_prices(scene: Scene, criterion: str) -> dict[str, float]:
    """The price of every block that may go, by name; the cheapest go first. Errors as of `channel_prices`."""
    price = found(BLOCKS, "block_criterion", criterion)
    return _priced("block_criterion", criterion, scene.blocks, lambda block: price(scene, block))


def _priced(key: str, criterion: str, parts: Iterable[Part], price: Callable[[Part], Price]) -> dict[str, Price]:
    """The prices of these parts of a network by their names."""
    prices, reasons = dict[str, Price](), dict[str, str]()
    for part in parts:
        try:
            prices[part.name] = price(part)
        except SettingsError as error:
            reasons[part.name] = str(error)
        else:
            _check_finite(criterion, part.name, prices[part.name])
    if reasons:
        name, reason = next(iter(reasons.items()))
        others = f" and {len(reasons) - 1} more" if len(reasons) > 1 else ""
        raise SettingsError(
            f"{key}={criterion!r} cannot price {name} ({reason}){others}; choose another, or keep what it cannot "
            f"price: keep={list(reasons)}"
        )
    return prices


def _check_finite(criterion: str, name: str, prices: Tensor | float) -> None:
    if not bool(torch.isfinite(torch.as_tensor(prices)).all()):
        raise DataError(
            f"the prices that {criterion} gives {name} are not finite numbers; check that the weights of the network "
            "and its training data are finite"
        )


def found(known: Mapping[str, Known], key: str, name: str) -> Known:
    """The entry of this name.

    Raises:
        SettingsError: there is none.
    """
    if name not in known:
        raise SettingsError(f"{key}: expected one of {', '.join(known)}, got {name!r}{nearest(name, known)}")
    return known[name]
