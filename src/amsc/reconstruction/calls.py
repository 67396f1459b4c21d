"""Calls of linear operators in one form: a row of what a position reads, times a matrix, is a row of the output."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "LinearCall",
    "input_rows",
    "layout",
    "linear_call",
    "matrices",
    "numbered",
    "output_rows",
    "put_back",
    "row_order",
    "weight_change",
]

_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_PRODUCT = ("input", "weight")
_TRANSPOSED = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
_ARGUMENTS: Mapping[Callable[..., Any], tuple[int, bool, tuple[str, ...]]] = {
    functional.linear: (0, False, ("input", "weight", "bias")),
    torch.addmm: (0, True, ("bias", "input", "weight")),
    **dict.fromkeys((torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm), (0, True, _PRODUCT)),
    **{f: (n, False, _CONVOLUTION) for n, f in enumerate((torch.conv1d, torch.conv2d, torch.conv3d), 1)},
    **{
        f: (n, True, _TRANSPOSED)
        for n, f in enumerate((torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d), 1)
    },
}
"""Number of spatial axes, whether it is transposed, and the names of its arguments."""


@dataclass(frozen=True, eq=False)
class LinearCall:
    """A call of a linear layer (`num_axes` 0) or of a convolution over so many axes; `transposed` ones, and products
    with a matrix, have the outputs along the second axis of their weight."""

    input: Tensor
    weight: Tensor
    bias: Tensor | None
    num_axes: int
    transposed: bool
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @property
    def kernel(self) -> tuple[int, ...]:
        """Sizes of the kernel; none of a linear layer."""
        return tuple(self.weight.shape[2:])

    @property
    def group_inputs(self) -> int:
        """Input channels of a group."""
        return self.weight.shape[0] // self.groups if self.transposed else self.weight.shape[1]

    @property
    def row_size(self) -> int:
        """How many numbers a position reads in a group."""
        return self.group_inputs * math.prod(self.kernel)

    @property
    def num_outputs(self) -> int:
        """Output channels."""
        return self.weight.shape[1] * self.groups if self.transposed else self.weight.shape[0]


def linear_call(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> LinearCall | None:
    """The call, if `function` is a linear operator."""
    if function not in _ARGUMENTS:
        return None
    num_axes, transposed, names = _ARGUMENTS[function]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    if not isinstance(given.get("weight"), Tensor) or kwargs.keys() & {"beta", "alpha", "out"}:
        return None
    dilation = _per_axis(given.get("dilation", 1), num_axes)
    padding, weight = given.get("padding", 0), given["weight"]
    if isinstance(padding, str):
        spans = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        padding = [span // 2 if padding == "same" else 0 for span in spans]
    stride, padding = _per_axis(given.get("stride", 1), num_axes), _per_axis(padding, num_axes)
    groups = given.get("groups", 1)
    return LinearCall(
        given["input"], weight, given.get("bias"), num_axes, transposed, stride, padding, dilation, groups
    )


def _per_axis(value: Any, num_axes: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * num_axes if len(values) == 1 else values


def layout(call: LinearCall, output: Tensor) -> tuple[int, ...]:
    """How the positions of an output lie."""
    axis = output.ndim - 1 - call.num_axes
    return tuple(size for number, size in enumerate(output.shape) if number != axis)


def output_rows(call: LinearCall, output: Tensor, positions: Tensor) -> Tensor:
    """What these of its positions hold of an output, or of a tensor of its shape. Shape: (position, channel)."""
    return _channels_last(call, output).flatten(0, -2).index_select(0, positions)


def _channels_last(call: LinearCall, tensor: Tensor) -> Tensor:
    """With a batch axis first, and the channels as the last axis."""
    if not call.num_axes:
        return tensor if tensor.dim() > 1 else tensor[None]
    return (tensor if tensor.dim() > call.num_axes + 1 else tensor[None]).movedim(1, -1)


def numbered(call: LinearCall, output: Tensor) -> Tensor:
    """Whole numbers in the shape of the output: the number of the row times the channels, and that of the channel."""
    lies = _channels_last(call, output)
    numbers = torch.arange(output.numel(), device=output.device).view(lies.shape)
    return (numbers.movedim(-1, 1) if call.num_axes else numbers).reshape(output.shape)


def row_order(call: LinearCall, places: Tensor) -> Tensor:
    """The rows in the order in which they lie where their numbers (`numbered`) have got to these `places`."""
    numbers = places.flatten()
    return numbers[numbers % call.num_outputs == 0] // call.num_outputs


def put_back(call: LinearCall, output: Tensor, places: Tensor, end: Tensor) -> Tensor:
    """What lies at the `end`, in the rows of the output from which it came; zeros where none got there. Shape: (row,
    channel)."""
    numbers = end.new_zeros(output.numel())
    numbers[places.flatten()] = end.flatten()
    return numbers.view(-1, call.num_outputs)


def input_rows(call: LinearCall, output: Tensor, positions: Tensor) -> Tensor:
    """What these positions of the output read: zeros outside of the input. Shape: (group, position, what is read).

    What a position reads is ordered by place in the kernel, then by channel (see `weight_change`)."""
    values, places = _channels_last(call, call.input), _channels_last(call, output).shape[:-1]
    index, inside = (
        _read_places(call, values, torch.unravel_index(positions, places))
        if call.num_axes
        else (
            positions[:, None],
            torch.ones_like(positions[:, None], dtype=torch.bool),
        )
    )
    rows = values.flatten(0, -2).index_select(0, index.where(inside, 0).flatten())
    rows = rows.masked_fill(~inside.flatten()[:, None], 0)
    rows = rows.view(len(positions), -1, call.groups, call.group_inputs)
    return rows.permute(2, 0, 1, 3).flatten(2)


def _read_places(call: LinearCall, values: Tensor, grid: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Where in the flattened input the kernel of each position reads, and whether that is inside of it."""
    index = grid[0][:, None]
    inside = torch.ones_like(index, dtype=torch.bool)
    for axis, place in enumerate(grid[1:]):
        steps = torch.arange(call.kernel[axis], device=place.device) * call.dilation[axis]
        if call.transposed:
            ahead = place[:, None] + call.padding[axis] - steps
            read, is_met = ahead.div(call.stride[axis], rounding_mode="floor"), ahead % call.stride[axis] == 0
        else:
            read = place[:, None] * call.stride[axis] - call.padding[axis] + steps
            is_met = torch.ones_like(read, dtype=torch.bool)
        size = values.shape[1 + axis]
        is_met &= (read >= 0) & (read < size)
        index = (index[:, :, None] * size + read[:, None]).flatten(1)
        inside = (inside[:, :, None] & is_met[:, None]).flatten(1)
    return index, inside


def matrices(weight: Tensor, groups: int, *, transposed: bool) -> Tensor:
    """The weight as matrices, shape (group, output of the group, what is read); see `input_rows` for the order."""
    kernel = math.prod(weight.shape[2:])
    parts = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], kernel)
    return parts.permute(*((0, 2, 3, 1) if transposed else (0, 1, 3, 2))).flatten(2)


def weight_change(weight: Tensor, change: Tensor, *, transposed: bool) -> Tensor:
    """A change of the matrices, shape (group, output of the group, what is read), as one of the weight."""
    groups, outputs, size = change.shape
    kernel = math.prod(weight.shape[2:])
    change = change.view(groups, outputs, kernel, size // kernel)
    order = (0, 3, 1, 2) if transposed else (0, 1, 3, 2)
    return change.permute(*order).reshape(weight.shape)
