"""What a cut of a projection means for attention heads: whole ones go, and as many positions of each other one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

__all__ = ["HeadCut", "HeadSizes", "fused_cuts", "head_cut", "removed_mask"]


@dataclass(frozen=True)
class HeadSizes:
    """Number of query heads, of key/value heads, and positions of a head (None: not known)."""

    heads: int
    key_value_heads: int
    head_size: int | None


@dataclass(frozen=True)
class HeadCut:
    """One of query, key and value ("q", "k", "v"), "o" for the layer behind, or "x" for parts of a head that are not
    told apart: which heads stay and how many positions each has, before and after."""

    role: str
    stays: tuple[bool, ...]
    old_size: int
    new_size: int

    @property
    def num_left(self) -> int:
        """How many heads stay."""
        return sum(self.stays)


def removed_mask(size: int, removed: Sequence[int]) -> Tensor:
    """Bool mask [size], True where a position goes."""
    mask = torch.zeros(size, dtype=torch.bool)
    mask[list(removed)] = True
    return mask


def head_cut(role: str, removed: Tensor) -> HeadCut | None:
    """What a mask [heads, positions] removes; None if it is not the same number of positions in all heads that stay.

    >>> head_cut("q", torch.tensor([[True, True], [False, True]]))
    HeadCut(role='q', stays=(False, True), old_size=2, new_size=1)
    """
    left = (~removed).sum(1)
    sizes = set(left[left > 0].tolist())
    if len(sizes) != 1:
        return None
    return HeadCut(role, tuple((left > 0).tolist()), removed.shape[1], sizes.pop())


def fused_cuts(role: str, removed: Tensor, sizes: HeadSizes) -> tuple[HeadCut, ...]:
    """The cuts of the parts of one projection with mask [features]; () if no known layout fits.

    Tried are, with n heads of size d: parts after parts (timm, GPT-2), heads of all parts (Bloom, GPT-NeoX), fewer
    key and value heads behind the query heads (Phi-3) or beside their queries (Falcon), and whole heads of any layout.
    """
    for parts in _layouts(role, removed, sizes):
        cuts = [head_cut(part, mask) for part, mask in parts]
        if None not in cuts and _agree(found := tuple(cut for cut in cuts if cut is not None)):
            return found
    return ()


def _agree(cuts: tuple[HeadCut, ...]) -> bool:
    """The same key/value heads go from keys and values, and where there is one query head each, from queries."""
    return len({cut.stays for cut in cuts if cut.role != "q" or len(cut.stays) == len(cuts[-1].stays)}) == 1


Parts = list[tuple[str, Tensor]]


def _layouts(role: str, removed: Tensor, sizes: HeadSizes) -> Iterator[Parts]:
    n, m, d = sizes.heads, sizes.key_value_heads, sizes.head_size
    size = removed.numel()
    if len(role) == 1:
        heads = m if role in "kv" else n
        if size % heads == 0:
            yield [(role, removed.view(heads, -1))]
        return
    has_q = "q" in role
    if not has_q or n == m:
        yield from _even_layouts(role, removed, m, d)
    if role == "qkv" and d is not None and size == (n + 2 * m) * d:
        q, k, v = removed.split([n * d, m * d, m * d])
        yield [("q", q.view(n, d)), ("k", k.view(m, d)), ("v", v.view(m, d))]
        if n % m == 0:
            rows = removed.view(m, n // m + 2, d)
            yield [("q", rows[:, :-2].reshape(n, d)), ("k", rows[:, -2]), ("v", rows[:, -1])]
    heads = n if has_q else m
    if size % heads == 0:
        yield [("x", removed.view(heads, -1))]


def _even_layouts(role: str, removed: Tensor, heads: int, head_size: int | None) -> Iterator[Parts]:
    parts = len(role)
    if removed.numel() % prod((parts, heads)) or head_size not in (None, removed.numel() // (parts * heads)):
        return
    yield list(zip(role, removed.view(parts, heads, -1), strict=True))
    yield list(zip(role, removed.view(heads, parts, -1).unbind(1), strict=True))
