"""The activations of a group's channels, as the first layer reads them."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from amsc.borrowing import borrowed, unfused_attention
from amsc.criteria.scene import Scene
from amsc.errors import SettingsError
from amsc.reconstruction.batches import run
from amsc.reconstruction.calls import LinearCall
from amsc.reconstruction.watch import Names, Watch
from amsc.structure.structure import ChannelGroup

__all__ = ["Maps", "features", "maps_of"]


@dataclass(frozen=True, eq=False)
class Maps:
    """The channels of a group in one batch.

    `values`: shape (example, channel, own, *axes); `own` counts the positions of a channel on its axis: 1 for a filter,
    height times width for one that is read after a flatten. `read` is what the layer that reads them returned, None
    where they are the output of the layer that makes them."""

    values: Tensor
    read: Tensor | None


def maps_of(scene: Scene, group: ChannelGroup, *, axes: int = 0) -> list[Maps]:
    """The activations of the channels of `group` in each batch of the scene.

    They are what the first layer reads that reads them: behind normalisation, activation and pooling. A layer counts if
    it is a convolution over at least `axes` axes (or, with 0, any linear operator) and has a single group; where no
    reader does, the output of the last such layer that makes the channels.

    Raises:
        SettingsError: there is no such layer.
    """
    names, found = Names.of(scene.model), []
    with borrowed(scene.model), unfused_attention():
        for batch in scene.batches:
            seen = _Seen(names, group, axes)
            with contextlib.suppress(_SeenError):
                run(scene.model, batch, seen)
            if seen.found is None:
                kind = f"convolution over {axes} axes" if axes else "linear operator"
                raise SettingsError(f"no {kind} makes its channels or reads them")
            found.append(seen.found)
    return found


def features(model: nn.Module, batches: Sequence[Any]) -> Tensor:
    """What the last linear operator reads of each example: the features of a classifier. Shape: (example, feature)."""
    names, found = Names.of(model), []
    with borrowed(model), unfused_attention():
        for batch in batches:
            watch = _Last(names)
            run(model, batch, watch)
            if watch.read is None:
                raise SettingsError("the network has no linear operator, so that no features can be compared")
            found.append(watch.read.flatten(1).float())
    return torch.cat(found)


class _SeenError(BaseException):
    """Nothing more is wanted of this forward pass. No `Exception`, which the user's forward may catch."""


class _Own(Watch):
    """A watch that does not follow what becomes of outputs."""

    def is_followed(self, name: str) -> bool:
        return False


class _Seen(_Own):
    def __init__(self, names: Names, group: ChannelGroup, axes: int) -> None:
        super().__init__(names)
        members = [member for member in group.members if len(names.tensors[member.parameter].shape) > 1]
        self._readers = {m.parameter: torch.tensor(m.indices) for m in members if m.role == "in"}
        self._makers = {m.parameter: torch.tensor(m.indices) for m in members if m.role == "out"}
        self._axes = axes
        self.found: Maps | None = None

    def called(self, name: str, call: LinearCall, output: Tensor) -> None:
        if call.num_axes < self._axes:
            return
        if name in self._readers and call.groups == 1:
            self.found = Maps(_channels(call.input, call.num_axes, self._readers[name]), output)
            raise _SeenError
        if name in self._makers:
            self.found = Maps(_channels(output, call.num_axes, self._makers[name]), None)


class _Last(_Own):
    read: Tensor | None = None

    def called(self, name: str, call: LinearCall, output: Tensor) -> None:
        self.read = call.input.clone()  # what comes then may overwrite it


def _channels(tensor: Tensor, num_axes: int, positions: Tensor) -> Tensor:
    """The channels with these positions (shape: channel, own), copied. Shape: (example, channel, own, *axes)."""
    axis = tensor.ndim - 1 - num_axes
    batched = tensor if axis else tensor[None]
    return batched.movedim(max(axis, 1), 1)[:, positions.to(tensor.device)].detach()
