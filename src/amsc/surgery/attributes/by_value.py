"""Numbers of any name that are known by their value: that of an axis that was cut, and of nothing else nearby.

For what the forward pass on the example inputs does not read: another way through a block, a method called later. What
it does read, and this gets wrong, shows when the cut is tried.
"""

import re
from collections.abc import Container, Iterator, Mapping

from torch import nn

from amsc.surgery.attributes import names
from amsc.surgery.attributes.places import Place, label_of, set_number, whole_numbers
from amsc.surgery.plan import AxisCut

__all__ = ["follow_values"]

DEPTH = 3
PARTS = (1, 2, 3)  # the whole axis, halves, and queries, keys and values
LEAST = 4  # numbers below are strides and kernel sizes as often as widths
# What a number of this name counts is not channels, even where it looks like them.
_OTHER = names.words(
    """max min length len pos position positions seq sequence index idx id i n depth window kernel stride strides
    padding dilation image img resolution patch patches class classes nc vocab token tokens seed step steps epoch
    epochs version layer layers block time rate height fps batch iter iters level levels stage save"""
)


def follow_values(module: nn.Module, owned: Mapping[nn.Module, tuple[AxisCut, ...]], decided: Container[str]) -> None:
    """Set those numbers of `module` that can only be the old width of what was cut nearest to them; the attributes
    `decided` are left alone.

    A number counts as a width where an axis has that many positions, or as many in each half or third, and the same
    went from all of these. The nearest axes must agree on what it becomes; those of that size that stay say that it
    stays. Where no axis has that size as a whole, so do those that stay with halves or thirds of it.
    """
    axes = list(_axes(module, owned))
    if not any(cut is not None for _, _, cut in axes):
        return
    numbers: dict[str, list[tuple[Place, int]]] = {}
    for place, old in whole_numbers(module):
        numbers.setdefault(_holder(place), []).append((place, old))
    for places in numbers.values():
        new = [_agreed(old, axes) if _may_follow(module, place, old, decided) else None for place, old in places]
        if None not in new:  # of a list of several things, layers for example, one or the other may look like a width
            for (place, _), number in zip(places, new, strict=True):
                assert number is not None, "looked for just before"
                set_number(module, place, number)


def _holder(place: Place) -> str:
    """The same for the numbers of one list or tuple."""
    named = [str(step) for step in place if isinstance(step, str)]
    return ".".join(named)


def _may_follow(module: nn.Module, place: Place, old: int, decided: Container[str]) -> bool:
    """Whether the number is in an attribute, or in tuples, lists and dicts there, and is not called something else."""
    if old < LEAST or place[0] in decided:
        return False
    value = vars(module)[place[0]]
    for step in place[1:]:
        if not isinstance(value, tuple | list | dict):
            return False
        value = value[step]
    return _OTHER.isdisjoint(re.split(r"[^a-z]+", label_of(module, place).lower()))


_Axis = tuple[int, int, AxisCut | None]  # depth, size before the cut, the cut if there was one


def _axes(module: nn.Module, owned: Mapping[nn.Module, tuple[AxisCut, ...]]) -> Iterator[_Axis]:
    for path, child in module.named_modules():
        depth = path.count(".") + 1 if path else 0
        if depth > DEPTH:
            continue
        cuts = {(cut.parameter, cut.axis): cut for cut in owned.get(child, ())}
        for name, tensor in (*child._parameters.items(), *child._buffers.items()):
            for axis, size in enumerate(tensor.shape if tensor is not None else ()):
                cut = cuts.get((name, axis))
                yield depth, size if cut is None else cut.size, cut


def _agreed(old: int, axes: list[_Axis]) -> int | None:
    """What the axes nearest by that speak of `old` make of it; None if they say that it stays, or disagree."""
    for depth in sorted({depth for depth, _, _ in axes}):
        near = [(size, cut) for d, size, cut in axes if d == depth]
        said = {_left_of_each(old, cut) for _, cut in near if cut is not None} - {None}
        if (old, None) in near or (said and _is_part_of_what_stays(old, near)):
            said.add(old)
        if said:
            return said.pop() if len(said) == 1 and said != {old} else None
    return None


def _is_part_of_what_stays(old: int, near: list[tuple[int, AxisCut | None]]) -> bool:
    """Whether `old` is the size of no whole axis, and that of a half or third of an axis that stays.

    With three heads, the projections that stay are three head sizes wide. A stream of that width has thirds of the same
    size by chance; that it was cut says nothing of the heads."""
    is_whole = any(size == old for size, _ in near)
    return not is_whole and any(cut is None and _falls_into(size, old) for size, cut in near)


def _falls_into(size: int, part: int) -> bool:
    return size % part == 0 and size // part in PARTS


def _left_of_each(old: int, cut: AxisCut) -> int | None:
    """How many positions are left of each `old` ones, if the same went from all of them."""
    if not _falls_into(cut.size, old):
        return None
    parts: list[set[int]] = [set() for _ in range(cut.size // old)]
    for position in cut.removed:
        parts[position // old].add(position % old)
    return old - len(parts[0]) if all(part == parts[0] for part in parts) else None
