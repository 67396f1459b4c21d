"""Two cuts, one after the other, as one plan."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import count, islice

from amsc.errors import CutError
from amsc.structure.cutting import narrowed
from amsc.structure.names import is_in_any
from amsc.surgery.plan import AxisCut, CutPlan, NewSize, outermost

__all__ = ["compose"]


def compose(first: CutPlan, second: CutPlan) -> CutPlan:
    """The one plan that does to the original network what `first` and then `second` do.

    `second` was planned on the network that `first` leaves, so its positions and channel indices count what
    was left; the result counts the original ones. Predictions and input specification are those of `second`.

    Raises:
        CutError: `second` was not planned on the result of `first`.
    """
    blocks = outermost((*first.blocks, *second.blocks))
    earlier = {name: narrowed(call, second.positions) for name, call in first.block_calls.items()}
    calls = {**earlier, **second.block_calls}
    return CutPlan(
        inputs=second.inputs,
        channels=_composed_channels(first.channels, second.channels),
        blocks=blocks,
        block_parameters=tuple(sorted({*first.block_parameters, *second.block_parameters})),
        cuts=_composed_cuts(first, second, blocks),
        macs=second.macs,
        parameters=second.parameters,
        block_calls={name: call for name, call in calls.items() if name in blocks},
        folds=tuple(sorted(layer for layer in {*first.folds, *second.folds} if not is_in_any(layer, blocks))),
        plain=tuple(sorted(name for name in {*first.plain, *second.plain} if name in blocks)),
        sizes=_composed_sizes(first, second),
        unproven={**first.unproven, **second.unproven},
    )


def _composed_sizes(first: CutPlan, second: CutPlan) -> tuple[NewSize, ...]:
    return tuple({(size.module, size.place): size for size in (*first.sizes, *second.sizes)}.values())


def _composed_cuts(first: CutPlan, second: CutPlan, blocks: tuple[str, ...]) -> tuple[AxisCut, ...]:
    earlier = {(cut.parameter, cut.axis): cut for cut in first.cuts}
    later = {(cut.parameter, cut.axis): cut for cut in second.cuts}
    for layer in second.folds:
        rows = earlier.get((f"{layer}.weight", 0))
        if rows is not None:  # a bias that the second plan makes has the rows that the first one left
            earlier.setdefault((f"{layer}.bias", 0), replace(rows, parameter=f"{layer}.bias"))
    for name, _ in later:
        if is_in_any(name, first.blocks):
            raise CutError(f"the second plan cuts {name!r}, but the first one removed the block it lies in")
    pairs = ((earlier.get(key), later.get(key)) for key in sorted({*earlier, *later}))
    cuts = (_composed_cut(one, two) for one, two in pairs)
    return tuple(cut for cut in cuts if not is_in_any(cut.parameter, blocks))


def _composed_cut(first: AxisCut | None, second: AxisCut | None) -> AxisCut:
    if first is None or second is None:
        only = first or second
        assert only is not None, "the key came from one of the two plans"
        return only
    kept = first.kept
    if len(kept) != second.size:
        raise CutError(
            f"the first plan leaves {len(kept)} positions on axis {first.axis} of {first.parameter!r}, the second one"
            f" expects {second.size}; plan the second on the result of the first"
        )
    removed = sorted((*first.removed, *(kept[position] for position in second.removed)))
    return AxisCut(first.parameter, first.axis, first.size, tuple(removed), first.zeroed or second.zeroed)


def _composed_channels(
    first: Mapping[str, tuple[int, ...]], second: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    names = sorted({*first, *second})
    return {name: _original(first.get(name, ()), second.get(name, ())) for name in names}


def _original(removed: tuple[int, ...], then_removed: Iterable[int]) -> tuple[int, ...]:
    """All removed indices in the first numbering; index j of the second is the j-th number not in `removed`."""
    then = sorted(then_removed)
    gone = frozenset(removed)
    left = list(islice((index for index in count() if index not in gone), then[-1] + 1 if then else 0))
    return tuple(sorted((*removed, *(left[index] for index in then))))
