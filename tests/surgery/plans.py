"""Plans written by hand, from what goes where."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from amsc.borrowing import InputSpec, named_tensors
from amsc.surgery import AxisCut, CutPlan

# (parameter, axis) -> positions that go
Removed = Mapping[tuple[str, int], Sequence[int]]


def plan_by_hand(model: nn.Module, inputs: Any, produced: Removed, read: Removed | None = None) -> CutPlan:
    """A plan that removes positions of axes that produce the channels (set to zero when masked) and that read them."""
    tensors = named_tensors(model)
    cuts = tuple(
        AxisCut(name, axis, tensors[name].shape[axis], tuple(sorted(removed)), zeroed)
        for part, zeroed in ((produced, True), (read or {}, False))
        for (name, axis), removed in part.items()
    )
    return CutPlan(InputSpec.of(inputs), {"heads": (0,)}, (), (), cuts, 0, 0)


def head(number: int, size: int, part: int = 0) -> list[int]:
    """The positions of one head of `size`, behind `part` positions."""
    return [part + number * size + i for i in range(size)]


def dims(num_heads: int, size: int, removed: Sequence[int], part: int = 0) -> list[int]:
    """These positions of every head."""
    return [part + n * size + i for n in range(num_heads) for i in removed]
