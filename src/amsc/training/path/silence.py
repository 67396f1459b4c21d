"""Empty blocks that say nothing, also where their frozen shifts would."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from amsc.structure.own_buffers import own_buffers

__all__ = ["Silence"]


class Silence:
    """Holds the own buffers of empty blocks at zero: what is trained is then the network without these blocks, as after
    the cut. Behind a normalisation whose scale and shift are buffers a block without parameters still gives its shift.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._blocks: tuple[str, ...] = ()
        self._before: dict[int, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def add(self, blocks: Iterable[str]) -> None:
        """These blocks are silent from now on."""
        self._blocks = tuple(dict.fromkeys((*self._blocks, *blocks)))
        for buffer in own_buffers(self._model, self._blocks):
            if id(buffer) not in self._before:
                self._before[id(buffer)] = (buffer, buffer.clone())
                buffer.zero_()

    @torch.no_grad()
    def end(self) -> None:
        """The buffers are as they were: not all that is empty is cut."""
        for buffer, before in self._before.values():
            buffer.copy_(before)
        self._blocks, self._before = (), {}
