"""Before a cut that is to leave alike layers alike: what of it a configuration of transformers could say."""

from collections.abc import Iterable, Mapping

from torch import nn

from amsc.structure import Structure, held, stacks, uniform, whole_layers
from amsc.surgery.apply import apply_plan
from amsc.surgery.plan import plan_cut
from amsc.surgery.stock import as_stock, is_of_transformers

__all__ = ["uniformly_removable"]


def uniformly_removable(structure: Structure, model: nn.Module) -> Structure:
    """`structure` for a cut that leaves alike layers alike (see `amsc.structure.uniform`), and of a model of
    transformers only what a configuration of its class can say: each stack of groups is cut by one channel, each list
    of layers by one layer, from a copy, and stays if no configuration gives what is left."""
    alike = uniform(structure)
    if not is_of_transformers(model):
        return alike
    reasons: dict[str, str] = {}
    for names in _together(alike):
        if all(alike.group(name).removable for name in names):
            misfit = _misfit(model, alike, dict.fromkeys(names, (0,)))
            reasons |= dict.fromkeys(names, f"uniform: {misfit}") if misfit else {}
    blocks = [
        block.name
        for layers in whole_layers(alike)
        if _misfit(model, alike, {}, blocks=[layers[0].name])
        for block in layers
    ]
    return held(alike, reasons, blocks)


def _together(structure: Structure) -> list[tuple[str, ...]]:
    """The groups that go together, and each other one alone."""
    tied = stacks(structure)
    known = {name for names in tied for name in names}
    return [*tied, *((group.name,) for group in structure.channels if group.name not in known)]


def _misfit(
    model: nn.Module, structure: Structure, channels: Mapping[str, tuple[int, ...]], *, blocks: Iterable[str] = ()
) -> str:
    """What no configuration says of the network without these; "" if one says all."""
    return as_stock(apply_plan(model, plan_cut(structure, channels=channels, blocks=blocks))).misfit
