"""Other widths that modules store: where the old value is that of exactly one kind of axis that was cut."""

from collections.abc import Iterator, Mapping

from torch import nn

from amsc.surgery.attributes import names
from amsc.surgery.attributes.values import Changes, Size, stored_sizes
from amsc.surgery.plan import AxisCut

__all__ = ["INNER", "new_sizes", "uncut_sizes", "width_changes"]

DEPTH = 2
NUM_HEADS = names.HEADS | names.KEY_VALUE_HEADS
INNER = names.INNER_SIZES | names.VALUE_INNER_SIZES | names.KEY_VALUE_SIZES
WHOLE = NUM_HEADS | names.STREAM_SIZES
OWN = INNER | WHOLE


def width_changes(module: nn.Module, owned: Mapping[nn.Module, tuple[AxisCut, ...]]) -> Changes:
    """New values of stored widths of `module` by the cuts of its own tensors, then of the modules in it.

    The width of a stream or a number of heads must have been cut on every axis of that size; an inner width on some,
    all in the same way.
    """
    own = new_sizes({module: owned.get(module, ())})
    below = [child for path, child in module.named_modules() if path and path.count(".") < DEPTH]
    inside = new_sizes({child: owned.get(child, ()) for child in below})
    if not own and not inside:
        return {}
    left = uncut_sizes({child: owned.get(child, ()) for child in (module, *below)})
    changes: Changes = {}
    for name, old in _candidates(module):
        new = _mapped(old, own) if name in OWN else None
        if new is None and name in INNER:
            new = _mapped(old, inside)
        if new is None and name in WHOLE:
            new = _mapped(old, {size: inside[size] for size in inside.keys() - left})
        if new is not None:
            changes[name] = new
    return changes


def _candidates(module: nn.Module) -> Iterator[tuple[str, Size]]:
    yield from stored_sizes(module).items()
    for name, value in vars(module).items():
        if isinstance(value, tuple) and value and all(type(one) is int for one in value):
            yield name, value


def _mapped(old: Size, new_sizes: Mapping[int, int]) -> Size | None:
    if isinstance(old, int):
        return new_sizes.get(old)
    # Of several axes of one size the last holds the channels, as in (positions, positions, heads).
    last = next((axis for axis in reversed(range(len(old))) if old[axis] in new_sizes), None)
    return None if last is None else (*old[:last], new_sizes[old[last]], *old[last + 1 :])


def new_sizes(owned: Mapping[nn.Module, tuple[AxisCut, ...]]) -> dict[int, int]:
    """Old to new of the sizes that are cut to one and the same new size wherever they are cut."""
    found: dict[int, set[int]] = {}
    for cuts in owned.values():
        for cut in cuts:
            found.setdefault(cut.size, set()).add(cut.size - len(cut.removed))
    return {old: new.pop() for old, new in found.items() if len(new) == 1}


def uncut_sizes(owned: Mapping[nn.Module, tuple[AxisCut, ...]]) -> set[int]:
    """The sizes of the axes that stayed, of the tensors of these modules."""
    return {
        size
        for module, cuts in owned.items()
        for name, tensor in (*module._parameters.items(), *module._buffers.items())
        if tensor is not None
        for axis, size in enumerate(tensor.shape)
        if not any((cut.parameter, cut.axis) == (name, axis) for cut in cuts)
    }
