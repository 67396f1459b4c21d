"""What may lie between a consumer and the addition to a stream: one scale to each number, and a new place."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Step", "argument", "is_batch_norm", "places_of", "scale_of", "step_of"]

_SUMS = ("add", "add_", "__add__", "__radd__", "__iadd__")
_SCALES = frozenset(
    (
        *(*_SUMS, "sub", "sub_", "rsub", "__sub__", "__rsub__", "__isub__", "subtract"),
        *("mul", "mul_", "__mul__", "__rmul__", "__imul__", "multiply"),
        *("div", "div_", "__truediv__", "__itruediv__", "__div__", "true_divide", "divide"),
    )
)
_MOVES = frozenset(
    (
        *("view", "reshape", "view_as", "reshape_as", "flatten", "unflatten", "squeeze", "unsqueeze"),
        *("permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "t", "roll", "flip", "narrow"),
        *("__getitem__", "pixel_shuffle", "pixel_unshuffle"),
    )
)
_COPIES = frozenset(("contiguous", "clone", "detach", "alias", "to", "float", "double", "half", "bfloat16"))
_DROPOUTS = (
    *(functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d),
    *(functional.alpha_dropout, functional.feature_alpha_dropout),
)
SILENT = 1e-3
"""A channel whose scale is less than this share of the largest hardly reaches the stream."""


@dataclass(frozen=True, eq=False)
class Step:
    """A function that was called, with the carried tensor as the argument `place`; a sum with a stream stands for
    itself, and is not called again."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    place: int
    is_sum: bool

    @property
    def moves(self) -> bool:
        """Whether numbers may get a new place."""
        return _name(self.function) in _MOVES

    @property
    def scales(self) -> bool:
        """Whether numbers may get a scale, or be left out."""
        return not self.is_sum and _name(self.function) not in _COPIES

    @property
    def batch_norm_mean(self) -> Tensor | None:
        """The running mean, if it is a batch normalisation."""
        if self.function is not functional.batch_norm:
            return None
        found: Tensor | None = argument(self.args, self.kwargs, 1, "running_mean", None)
        return found

    def __call__(self, carried: Tensor) -> Any:
        """The same function of another tensor."""
        if self.is_sum:
            return carried
        args = (*self.args[: self.place], carried, *self.args[self.place + 1 :])
        return self.function(*args, **self.kwargs)


def step_of(
    function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], carried: Tensor, is_static: Callable[[Tensor], bool]
) -> Step | None:
    """The step that a call is for the tensor `carried`; None where it is more than a scale to each number and a new
    place, or something comes in by the inputs and is not added."""
    places = [place for place, value in enumerate(args) if value is carried]
    name = _name(function)
    if len(places) != 1 or "out" in kwargs:
        return None
    others = [value for place, value in enumerate(args) if place != places[0]]
    if name in _SUMS and len(others) == 1 and isinstance(others[0], Tensor) and not is_static(others[0]):
        is_one = others[0].shape == carried.shape and not kwargs
        return Step(function, (), {}, 0, True) if is_one else None
    if not all(is_static(value) for value in (*others, *kwargs.values()) if isinstance(value, Tensor)):
        return None
    if not _is_affine(function, name, args, kwargs, places[0], others):
        return None
    kept = tuple(None if place == places[0] else value for place, value in enumerate(args))
    return Step(function, kept, kwargs, places[0], False)


def _is_affine(
    function: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], place: int, others: Sequence[Any]
) -> bool:
    if function is functional.batch_norm:
        return place == 0 and is_batch_norm(args, kwargs)
    if function in _DROPOUTS:
        return place == 0 and not argument(args, kwargs, 2, "training", function is not functional.alpha_dropout)
    if name in _MOVES or name in _COPIES:
        return place == 0
    if name not in _SCALES or len(others) != 1 or (name.startswith(("div", "true", "__div")) and place):
        return False
    other, carried = others[0], args[place]
    return not isinstance(other, Tensor) or torch.broadcast_shapes(other.shape, carried.shape) == carried.shape


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", ""))


def argument(args: Sequence[Any], kwargs: Mapping[str, Any], place: int, name: str, default: Any) -> Any:
    """An argument that may come by position or by name."""
    return args[place] if len(args) > place else kwargs.get(name, default)


def is_batch_norm(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether these arguments of `functional.batch_norm` make it use its running statistics."""
    return not argument(args, kwargs, 5, "training", False)


def scale_of(steps: Sequence[Step], output: Tensor) -> Tensor:
    """The scale by which each number of the output gets to the end of the steps; 0 where it is next to none.

    The steps are y = P (s * z) + ..., P a change of places: the derivatives of the sum of y by z are s. Where several
    numbers of y are of one of z, it is their sum."""
    if not any(step.scales for step in steps):
        return torch.ones_like(output)
    with torch.enable_grad():
        start = torch.zeros_like(output, requires_grad=True)
        end = start.clone()
        for step in steps:
            end = step(end)
        (scale,) = torch.autograd.grad(end, start, torch.ones_like(end))
    return scale.masked_fill(scale.abs() <= SILENT * scale.abs().max(), 0)


def places_of(steps: Sequence[Step], numbers: Tensor) -> Tensor:
    """Where the `numbers` of the output are at the end of the steps."""
    for step in steps:
        numbers = step(numbers) if step.moves else numbers
    return numbers
