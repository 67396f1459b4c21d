"""The norms of the penalised groups along a piece of the path, as a report draws them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from amsc.penalty import Penalty
from amsc.records import NormTrace
from amsc.training.path.look import Look

__all__ = ["NormLog"]

SAMPLES = 60
"""Moments per phase that are kept, at most: a line has no more bends than an eye can follow."""


class NormLog:
    """Keeps some of the looks at a network under a penalty.

    Args:
        penalty: whose groups they are.
        steps: how many steps the phase has.
    """

    def __init__(self, penalty: Penalty, steps: int) -> None:
        groups = list(dict.fromkeys(name for name, _ in penalty.channels))
        number = {name: position for position, name in enumerate(groups)}
        self._blocks, self._groups = tuple(penalty.blocks), tuple(groups)
        self._group_of = torch.tensor([number[name] for name, _ in penalty.channels], dtype=torch.long)
        self._apart = steps / SAMPLES
        self._samples: list[tuple[int, float, Tensor, Tensor]] = []

    def add(self, step: int, strength: float, look: Look) -> None:
        """The network as it is before `step`, with the strength from then on; left out if the last one is near."""
        if self._samples and step - self._samples[-1][0] < self._apart:
            return
        squares = look.channel_norms.new_zeros(len(self._groups))
        squares.index_add_(0, self._group_of, look.channel_norms.square())
        self._samples.append((step, strength, look.block_norms, squares.sqrt()))

    def trace(self, first: float, per_epoch: int) -> NormTrace | None:
        """What was kept, if anything; step 0 came after `first` epochs of training, each of `per_epoch` steps."""
        if not self._samples:
            return None
        steps, strengths, blocks, groups = zip(*self._samples, strict=True)
        return NormTrace(
            epochs=tuple(first + step / per_epoch for step in steps),
            strengths=tuple(map(_short, strengths)),
            blocks=_by_name(self._blocks, blocks),
            groups=_by_name(self._groups, groups),
        )


def _by_name(names: Sequence[str], rows: Sequence[Tensor]) -> Mapping[str, tuple[float, ...]]:
    lines = zip(*(row.tolist() for row in rows), strict=True)
    return {name: tuple(map(_short, line)) for name, line in zip(names, lines, strict=True)}


def _short(value: float) -> float:
    """Four figures: the record is read by people and kept for years."""
    return float(f"{value:.4g}")
