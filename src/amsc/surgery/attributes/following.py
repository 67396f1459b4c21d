"""What a stored number becomes by the cut of an axis: the number of equal parts that are left, or the size of a part."""

from collections.abc import Iterable, Mapping

from torch import nn

from amsc.structure.parts import StoredSize
from amsc.surgery.attributes.places import number_at, set_number
from amsc.surgery.heads import head_cut, removed_mask
from amsc.surgery.plan import AxisCut

__all__ = ["follow_stored", "new_number"]


def new_number(old: int, cut: AxisCut, *, counts: bool) -> int | None:
    """What becomes of `old`, the number of equal parts of an axis if it `counts` them, else the size of each; None if
    the cut leaves parts of different sizes, or the axis never fell into such parts.

    >>> new_number(2, AxisCut("w", 0, 6, (3, 4, 5), True), counts=True)
    1
    >>> new_number(3, AxisCut("w", 0, 6, (1, 4), True), counts=False)
    2
    """
    if old < 1 or cut.size % old:
        return None
    mask = removed_mask(cut.size, cut.removed)
    parts = head_cut("x", mask.view(old, -1) if counts else mask.view(-1, old))
    if parts is None:
        return None
    return parts.num_left if counts else parts.new_size


def follow_stored(model: nn.Module, sizes: Iterable[StoredSize], cuts: Iterable[AxisCut], old: Mapping[str, nn.Module]) -> None:
    """Set the numbers that `sizes` speaks of in the cut `model`; `old` are the modules before the cut, by name."""
    by_axis = {(cut.parameter, cut.axis): cut for cut in cuts}
    for size in sizes:
        number = number_at(old[size.module], size.place) if size.module in old else None
        if number is None:
            continue
        cut = by_axis.get((size.parameter, size.axis))
        new = number if cut is None else new_number(number, cut, counts=size.counts)
        if new is not None:
            set_number(model.get_submodule(size.module), size.place, new)
