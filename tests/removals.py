"""Random removals of exact channels and blocks, never all channels of a group."""

import random

from amsc.structure import Structure

Removal = tuple[dict[str, list[int]], list[str]]


def random_removal(structure: Structure, seed: int, *, kind: str = "mixed") -> Removal:
    """Channels (group name -> indices) and blocks to remove; `kind` is "inner", "stream", "blocks" or "mixed"."""
    chooser = random.Random(seed)
    streams = {"inner": [False], "stream": [True], "mixed": [False, True]}.get(kind, [])
    groups = [g for g in structure.channels if g.exact and g.size > 1 and (g.kind == "stream") in streams]
    chosen = [g for g in groups if chooser.random() < 0.7] or groups[:1]
    channels = {g.name: sorted(chooser.sample(range(g.size), chooser.randint(1, g.size - 1))) for g in chosen}
    blocks: list[str] = []
    if kind in ("blocks", "mixed") and structure.blocks:
        names = [block.name for block in structure.blocks if block.kind != "plain" or not channels]
        blocks = chooser.sample(names, chooser.randint(min(1, len(names)), len(names)))
    return channels, blocks
