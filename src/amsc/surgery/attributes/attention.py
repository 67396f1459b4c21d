"""Attention modules of any class: new numbers of heads and head sizes from the cuts of their projections."""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from amsc.surgery.attributes import names
from amsc.surgery.attributes.values import config_sizes, stored_sizes
from amsc.surgery.heads import HeadCut, HeadSizes, fused_cuts, removed_mask
from amsc.surgery.plan import AxisCut

__all__ = ["HEAD_NAMES", "Heads", "Kinds", "head_changes", "head_kinds", "heads_stay"]

DEPTH = 3
HEAD_NAMES = names.HEADS | names.KEY_VALUE_HEADS | names.GROUPS | names.HEAD_SIZES | names.VALUE_HEAD_SIZES


@dataclass(frozen=True)
class _Projection:
    """The cut of the axis of a projection along which the heads lie."""

    role: str
    removed: Tensor


@dataclass(frozen=True)
class Heads:
    """Number and size of one kind of heads, before and after."""

    heads: int
    size: int
    new_heads: int
    new_size: int


@dataclass(frozen=True)
class Kinds:
    """Heads of queries, keys and values; where a kind was not cut, as far as known from the others."""

    query: Heads
    key: Heads
    value: Heads


def head_kinds(module: nn.Module, owned: Mapping[nn.Module, tuple[AxisCut, ...]]) -> Kinds | None:
    """The heads of `module` before and after the cut of its projections; None if it knows no sizes of heads, none
    went, or what went are not whole heads and the same number of positions of every other head."""
    stored = {**config_sizes(module), **stored_sizes(module)}
    if not HEAD_NAMES & stored.keys():
        return None
    projections = list(_projections(module, owned))
    sizes = _old_sizes(module, stored, projections)
    if not projections or sizes is None:
        return None
    found = _by_role([cut for one in projections for cut in fused_cuts(one.role, one.removed, sizes)])
    return _kinds(sizes, found) if found else None


def heads_stay(module: nn.Module, owned: Mapping[nn.Module, tuple[AxisCut, ...]]) -> bool:
    """Whether the sizes of heads that `module` keeps stay as they are: it has projections to queries, keys or values,
    and no projection lost anything along its heads."""
    keeps_sizes = bool(HEAD_NAMES & stored_sizes(module).keys())
    return keeps_sizes and _has_projections(module) and next(_projections(module, owned), None) is None


def head_changes(kinds: Kinds, stored: Mapping[str, int], read: Container[str]) -> dict[str, int]:
    """What those of the `stored` numbers become that are sizes of heads or the width of all heads, by their names.

    A name of a stream's width, such as embed_dim, counts where it is in `read`: an attention's forward reads it for the
    width of all heads, its projections know the others.
    """
    new = {name: _new_value(name, old, kinds, is_read=name in read) for name, old in stored.items()}
    return {name: value for name, value in new.items() if value is not None and value != stored[name]}


def _has_projections(module: nn.Module) -> bool:
    roles = (
        names.projection_role(path or parameter)
        for path, child in module.named_modules()
        if path.count(".") < DEPTH
        for parameter in child._parameters
    )
    return any(role and role != "o" for role in roles)


def _projections(module: nn.Module, owned: Mapping[nn.Module, tuple[AxisCut, ...]]) -> Iterator[_Projection]:
    for path, child in module.named_modules():
        if child not in owned or path.count(".") >= DEPTH:
            continue
        for cut in owned[child]:
            tensor = getattr(child, cut.parameter)
            role = names.projection_role(path or cut.parameter)
            if role and tensor.dim() > 1 and cut.axis == _head_axis(child, role):
                yield _Projection(role, removed_mask(cut.size, cut.removed))


def _head_axis(projection: nn.Module, role: str) -> int:
    """The output axis of projections to queries, keys and values, the input axis of the one behind the heads."""
    is_transposed = type(projection).__name__ == "Conv1D"  # of transformers: its weight is [inputs, outputs]
    return int((role == "o") != is_transposed)


def _old_sizes(module: nn.Module, stored: Mapping[str, int], projections: list[_Projection]) -> HeadSizes | None:
    """The sizes before the cut, as far as the module, its configuration or the projections tell."""
    config = stored_sizes(own) if hasattr(own := getattr(module, "config", None), "__dict__") else {}
    sizes = {one.role: one.removed.numel() for one in projections if len(one.role) == 1}
    size = _first(stored, names.HEAD_SIZES)
    heads = _first(stored, names.HEADS) or _first(config, names.HEADS)
    if size and not heads:
        heads = next((sizes[role] // size for role in "qo" if role in sizes), None)
    key_value_heads = _first(stored, names.KEY_VALUE_HEADS)
    if heads and not key_value_heads and (groups := _first(stored, names.GROUPS)):
        key_value_heads = heads // groups
    if size and not key_value_heads:
        key_value_heads = next((sizes[role] // size for role in "kv" if role in sizes), None)
    heads = heads or key_value_heads
    if not heads:
        return None
    if not size:
        size = next((sizes[role] // heads for role in "qo" if role in sizes), None)
    return HeadSizes(heads, _fitting(key_value_heads or heads, sizes, size), size)


def _fitting(key_value_heads: int, sizes: Mapping[str, int], size: int | None) -> int:
    """As stored, unless the key or value projection has another whole number of heads."""
    for role in "kv":
        if role in sizes and sizes[role] % key_value_heads and size and sizes[role] % size == 0:
            return sizes[role] // size
    return key_value_heads


def _first(stored: Mapping[str, int], known: frozenset[str]) -> int | None:
    return next((value for name, value in stored.items() if name in known and value > 0), None)


def _by_role(cuts: list[HeadCut]) -> dict[str, Heads]:
    """Heads of queries ("q"), keys ("k") and values ("v"), where cut; {} if two cuts of the same kind disagree."""
    found: dict[str, Heads] = {}
    for cut in cuts:
        result = Heads(len(cut.stays), cut.old_size, cut.num_left, cut.new_size)
        if found.setdefault(cut.role, result) != result:
            return {}
    return found


def _kinds(sizes: HeadSizes, found: Mapping[str, Heads]) -> Kinds:
    """Without grouped queries there is one number of heads, so any of them stands for all."""
    size = sizes.head_size or next(iter(found.values())).size
    if sizes.heads == sizes.key_value_heads:
        left = next(iter(found.values())).new_heads
        query = found.get("q") or found.get("k") or found.get("x") or Heads(sizes.heads, size, left, size)
        return Kinds(query, query, found.get("v") or found.get("o") or query)
    query = found.get("q") or found.get("o") or found.get("x") or Heads(sizes.heads, size, sizes.heads, size)
    heads = sizes.key_value_heads
    key = found.get("k") or found.get("v") or Heads(heads, query.size, heads, query.new_size)
    return Kinds(query, key, found.get("v") or key)


def _new_value(name: str, old: int, kinds: Kinds, *, is_read: bool) -> int | None:
    """What the attribute `name` of value `old` becomes, None if it is none of these sizes."""
    query, key = kinds.query, kinds.key
    own = kinds.value if name in names.VALUE_HEAD_SIZES | names.VALUE_INNER_SIZES else query
    if name in names.HEADS:
        return _if(old, query.heads, query.new_heads)
    if name in names.KEY_VALUE_HEADS:
        return _if(old, key.heads, key.new_heads)
    if name in names.GROUPS:
        return _if(old, query.heads // key.heads, query.new_heads // key.new_heads)
    if name in names.HEAD_SIZES | names.VALUE_HEAD_SIZES and old == own.size:
        return own.new_size
    if name in names.KEY_VALUE_SIZES:
        return _if(old, key.heads * key.size, key.new_heads * key.new_size)
    if name in names.INNER_SIZES | names.VALUE_INNER_SIZES or (name in names.STREAM_SIZES and is_read):
        return _if(old, own.heads * own.size, own.new_heads * own.new_size)
    return None


def _if(old: int, expected: int, new: int) -> int | None:
    return new if old == expected else None
