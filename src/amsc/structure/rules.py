"""What each operator does to labels.

Operators that only move data are run on the labels; element-wise operators unite what they align; layers
tie their input to their weight and give their output the labels of the weight. What has no rule pins.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from amsc.structure.elementwise import copy_in_place, elementwise
from amsc.structure.labels import compact, core, no_labels, varying_axes
from amsc.structure.tracer import Parameter, Tracer
from amsc.structure.values import LayerCost

__all__ = ["Rule", "rule_for"]

Rule = Callable[[Tracer, Any, tuple[Any, ...], dict[str, Any], Any], None]
_RULES: dict[str, Rule] = {}


def rule_for(func: Any) -> Rule:
    """The rule of an ATen operator such as `aten.relu.default`; one that pins if there is none."""
    name = func._schema.name.removeprefix("aten::")
    if name in _RULES:
        return _RULES[name]
    return elementwise if torch.Tag.pointwise in func.tags else _pin


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        _RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


for _name in ("hardswish", "hardswish_", "_prelu_kernel", "masked_fill", "masked_fill_", "log_sigmoid_forward"):
    _RULES[_name] = elementwise
_RULES["copy_"] = copy_in_place


def _pin(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
    """An operator without a rule: what it reads stays, what it yields belongs to nothing removable."""
    tracer.pin_all((args, kwargs))
    for leaf in pytree.tree_leaves(output):
        if isinstance(leaf, Tensor) and func._schema.is_mutable:
            tracer.write(leaf, no_labels(leaf.shape))


@_rule("empty", "zeros", "ones", "full", "arange", "randn", "rand", "scalar_tensor", "empty_strided", "eye", "linspace")
@_rule("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "new_zeros", "new_ones")
@_rule("new_empty", "new_full", "new_empty_strided", "sym_size", "_local_scalar_dense", "is_nonzero")
def _nothing(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
    """The output holds no activation: only shapes, or constants, or a number for the user's code."""


# -- moving data -------------------------------------------------------------------------------------------------------


@_rule("detach", "alias", "clone", "contiguous", "_to_copy", "lift_fresh", "lift", "positive", "conj", "resolve_conj")
def _same(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """The same elements in the same places."""
    view = tracer.parameter_view(args[0])
    if view is not None:
        tracer.set_parameter_view(output, *view)
    else:
        tracer.set_labels(output, tracer.labels(args[0]))


@_rule("t", "transpose", "permute", "numpy_T", "movedim")
def _transpose(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """Axes change places; a transposed parameter is still that parameter."""
    view = tracer.parameter_view(args[0])
    if view is None:
        tracer.set_labels(output, func(tracer.labels(args[0]), *args[1:], **kwargs))
        return
    parameter, axes = view
    order = func(torch.empty([2 + axis for axis in range(len(axes))], device="meta"), *args[1:], **kwargs)
    tracer.set_parameter_view(output, parameter, tuple(axes[size - 2] for size in order.shape))


@_rule("view", "_unsafe_view", "reshape", "_reshape_alias", "unsqueeze", "squeeze", "expand", "flip", "repeat")
@_rule("stack", "pixel_shuffle", "pixel_unshuffle")
def _move(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """Elements change places: the same operator, run on the labels.

    A reshape that spreads labelled channels over several axes (heads, shuffle groups) would need equal
    numbers in each part after a cut: they are pinned.
    """
    if "view" in func._schema.name or "reshape" in func._schema.name:
        labels = tracer.labels(args[0])
        moved = compact(labels.reshape(output.shape))
        if len(varying_axes(moved)) > max(1, len(varying_axes(labels))):
            tracer.ledger.pin(labels, f"{tracer.reason} splits the axis")
            moved = no_labels(output.shape)
    else:
        on_labels = pytree.tree_map_only(Tensor, tracer.labels, args)
        moved = compact(func(*on_labels, **kwargs))
    tracer.set_labels(output, moved)


@_rule("cat")
def _concatenate(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """Run on the labels, leaving out axes along which no input's labels change."""
    tensors = [tensor for tensor in args[0] if tensor.ndim == output.ndim]
    axis = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % output.ndim
    every = [tracer.labels(tensor) for tensor in tensors]
    for other in range(output.ndim):
        if other != axis and all(core(labels).shape[other] == 1 for labels in every):
            every = [labels.narrow(other, 0, min(1, labels.shape[other])) for labels in every]
    tracer.set_labels(output, compact(torch.cat(every, axis)).expand(output.shape))


@_rule("slice", "select", "narrow", "split", "split_with_sizes", "chunk", "unbind", "diagonal", "roll", "unfold")
@_rule("index_select", "index", "gather", "as_strided", "glu", "tril", "triu")
def _choose(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
    """Part of the elements: free along axes on which labels do not change. Along the others the positions are
    constants of the user's code, which do not follow a cut: pinned."""
    labels = tracer.labels(args[0])
    outputs = [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]
    if not bool((core(labels) != 0).any()):
        return
    moved = None
    if not func._schema.name.endswith(("::gather", "::as_strided", "::tril", "::triu", "::index", "::glu")):
        moved = [compact(leaf) for leaf in pytree.tree_leaves(func(labels, *args[1:], **kwargs))]
    if moved is None or any(not _keeps_channels(labels, part) for part in moved):
        tracer.ledger.pin(labels, f"{tracer.reason} takes fixed positions")
        return
    for leaf, part in zip(outputs, moved, strict=True):
        tracer.set_labels(leaf, part)


def _keeps_channels(before: Tensor, after: Tensor) -> bool:
    """The labels are the same, in the same order, as before."""
    small, left = core(before).flatten(), core(after).flatten()
    return small.shape == left.shape and bool((small == left).all())


@_rule("constant_pad_nd")
def _pad(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """Padded positions belong to their channel; positions added to the channel axis itself are constants
    of the user's code and stay."""
    labels, amounts = tracer.labels(args[0]), list(args[1])
    value = args[2] if len(args) > 2 else kwargs.get("value", 0)
    small = core(labels)
    varying = varying_axes(labels)
    own = [0] * len(amounts)
    padded_elsewhere = False
    for pair in range(len(amounts) // 2):
        axis = labels.ndim - 1 - pair
        if axis in varying:
            own[2 * pair : 2 * pair + 2] = amounts[2 * pair : 2 * pair + 2]
        else:
            padded_elsewhere |= any(amounts[2 * pair : 2 * pair + 2])
    if padded_elsewhere and value != 0:
        small = -small.abs()
    if any(amount < 0 for amount in own):
        tracer.ledger.pin(labels, f"{tracer.reason} takes fixed positions")
        small = torch.zeros_like(small)
    tracer.set_labels(output, compact(func(small, own, 0)).expand(output.shape))


# -- mixing within a channel -------------------------------------------------------------------------------------------


def _spatial(rank: int) -> Rule:
    def channelwise(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Pooling, interpolation and the like: mixes the last `rank` axes, channel by channel, and gives 0 for 0."""
        first = output[0] if isinstance(output, tuple | list) else output
        labels = tracer.labels(args[0])
        mixed = tracer.ledger.mix(labels, list(range(labels.ndim - rank, labels.ndim)), tracer.reason)
        for leaf in pytree.tree_leaves(output):
            tracer.set_labels(leaf, compact(mixed.expand(first.shape)))

    return channelwise


for _rank, _names in {
    1: "avg_pool1d max_pool1d upsample_nearest1d upsample_linear1d _upsample_nearest_exact1d "
    "reflection_pad1d replication_pad1d",
    2: "avg_pool2d max_pool2d max_pool2d_with_indices adaptive_max_pool2d _adaptive_avg_pool2d adaptive_avg_pool2d "
    "upsample_nearest2d upsample_bilinear2d upsample_bicubic2d _upsample_nearest_exact2d _upsample_bilinear2d_aa "
    "_upsample_bicubic2d_aa reflection_pad2d replication_pad2d",
    3: "avg_pool3d max_pool3d max_pool3d_with_indices adaptive_max_pool3d _adaptive_avg_pool3d adaptive_avg_pool3d "
    "upsample_nearest3d upsample_trilinear3d _upsample_nearest_exact3d reflection_pad3d replication_pad3d",
}.items():
    _RULES.update(dict.fromkeys(_names.split(), _spatial(_rank)))


@_rule("mean", "sum", "amax", "amin", "max", "min", "var", "std", "linalg_vector_norm", "logsumexp", "prod")
@_rule("_softmax", "_log_softmax", "cumsum", "var_mean")
def _reduce(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
    """Reductions within a channel keep its label; a reduction over channels pins them."""
    labels = tracer.labels(args[0])
    outputs = [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]
    if not bool((core(labels) != 0).any()):
        return
    axes = _reduced_axes(func, args, kwargs, labels.ndim)
    if axes is None or any(axis in varying_axes(labels) for axis in axes):
        tracer.ledger.pin(labels, f"{tracer.reason} mixes channels")
        return
    small = core(labels)
    if func._schema.name not in ("aten::mean", "aten::sum", "aten::amax", "aten::amin", "aten::max", "aten::min"):
        small = -small.abs()
    for leaf in outputs:
        kept = small if leaf.ndim == labels.ndim else small.squeeze(axes)
        tracer.set_labels(leaf, compact(kept.expand(leaf.shape)))


def _reduced_axes(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], rank: int) -> tuple[int, ...] | None:
    """Axes that the reduction runs over, from its `dim` argument; None where it has none (all of them)."""
    names = [argument.name for argument in func._schema.arguments]
    given = dict(zip(names, args, strict=False)) | kwargs
    axes = given.get("dim")
    if axes is None or axes == []:
        return tuple(range(rank))
    return tuple(axis % rank for axis in (axes if isinstance(axes, list | tuple) else [axes]))


# -- layers ------------------------------------------------------------------------------------------------------------


@_rule("convolution", "_convolution")
def _convolution(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """Input channels go with the weight's input axis, output channels with its output axis; of a grouped or
    depthwise convolution only whole groups can go, with their inputs."""
    data, weight, bias = args[:3]
    transposed, groups = bool(args[6]), int(args[8])
    view = tracer.parameter_view(weight)
    outside = prod(data.shape[2:] if transposed else output.shape[2:]) * data.shape[0]
    if view is None or view[1] != tuple(range(weight.ndim)) or data.ndim != weight.ndim:
        tracer.costs.append(LayerCost(tracer.module, None, outside * weight.numel()))
        tracer.pin_all((data, weight, bias))
        return
    parameter = view[0]
    tracer.costs.append(LayerCost(tracer.module, parameter.name, outside))
    channels = _channels(tracer, data, axis=1)
    tracer.ledger.taint(channels, f"{tracer.reason} reads it after a non-zero constant")
    if groups == 1:
        tracer.ledger.unite(channels, tracer.axis_labels(parameter, 0 if transposed else 1, "in"), tracer.reason)
        produced = tracer.axis_labels(parameter, 1 if transposed else 0, "out")
    else:
        produced = _grouped(tracer, parameter, channels, groups, transposed)
    _add_bias(tracer, bias, produced)
    tracer.set_labels(output, _along(produced, output, axis=1))


def _grouped(tracer: Tracer, parameter: Parameter, channels: Tensor, groups: int, transposed: bool) -> Tensor:
    """Labels of the output channels of a grouped convolution, all of one group united with its inputs."""
    own = tracer.axis_labels(parameter, 0, "out").reshape(groups, -1)
    read = channels.reshape(groups, -1)
    tracer.ledger.unite(read[:, :1], read, tracer.reason)
    tracer.ledger.unite(own[:, :1], own, tracer.reason)
    tracer.ledger.unite(read[:, :1], own[:, :1], tracer.reason)
    if not transposed:
        return own.flatten()
    # The weight is (in, out / groups, ...): its second axis is shared by all groups, so outputs follow the inputs.
    return own[:, :1].expand(groups, parameter.tensor.shape[1]).flatten()


@_rule("addmm")
def _addmm(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """bias + data @ weight, as linear layers write it."""
    produced = _matrix_product(tracer, args[1], args[2])
    if produced is None or tracer.parameter_view(args[0]) is None:
        tracer.pin_all(args)
        return
    _add_bias(tracer, args[0], produced)
    tracer.set_labels(output, _along(produced, output, axis=-1))


@_rule("mm")
def _mm(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """data @ weight."""
    produced = _matrix_product(tracer, args[0], args[1])
    if produced is None:
        tracer.pin_all(args)
        return
    tracer.set_labels(output, _along(produced, output, axis=-1))


@_rule("linear")
def _linear(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
    """A linear layer that reaches the dispatcher whole (weight: out x in)."""
    bias = args[2] if len(args) > 2 else kwargs.get("bias")
    produced = _matrix_product(tracer, args[0], args[1], transposed=True)
    if produced is None:
        tracer.pin_all(args)
        return
    _add_bias(tracer, bias, produced)
    tracer.set_labels(output, _along(produced, output, axis=-1))


@_rule("bmm", "baddbmm", "matmul", "dot", "mv")
def _product_of_activations(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
) -> None:
    """A matrix product without a rule yet: pinned, but its cost counts."""
    data = args[1] if func._schema.name == "aten::baddbmm" else args[0]
    tracer.costs.append(LayerCost(tracer.module, None, output.numel() * data.shape[-1]))
    tracer.pin_all(args)


def _matrix_product(tracer: Tracer, data: Tensor, weight: Tensor, *, transposed: bool = False) -> Tensor | None:
    """Labels of the columns of data @ weight; None (and the cost noted) where `weight` is not a parameter."""
    view = tracer.parameter_view(weight)
    rows = data.numel() // data.shape[-1]
    if view is None or weight.ndim != 2 or tracer.parameter_view(data) is not None:
        tracer.costs.append(LayerCost(tracer.module, None, rows * weight.numel()))
        return None
    parameter, (read, written) = view[0], view[1][::-1] if transposed else view[1]
    tracer.costs.append(LayerCost(tracer.module, parameter.name, rows))
    channels = _channels(tracer, data, axis=-1)
    tracer.ledger.taint(channels, f"{tracer.reason} reads it after a non-zero constant")
    tracer.ledger.unite(channels, tracer.axis_labels(parameter, read, "in"), tracer.reason)
    return tracer.axis_labels(parameter, written, "out")


@_rule("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
@_rule("_batch_norm_with_update", "batch_norm", "miopen_batch_norm")
def _batch_norm(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
    """Channel by channel: its statistics, scale and shift go with the channel. With scale and shift zeroed
    it yields zero, whatever comes in; without them the running mean is left."""
    data, weight, bias, mean, variance = args[:5]
    channels = _channels(tracer, data, axis=1)
    _with_parameters(
        tracer, channels, ((weight, "affine"), (bias, "affine"), (mean, "statistic"), (variance, "statistic"))
    )
    is_affine = weight is not None and bias is not None
    result = channels.abs() if is_affine or mean is None else -channels.abs()
    normalised = output[0] if isinstance(output, tuple | list) else output
    tracer.set_labels(normalised, _along(result, normalised, axis=1))


@_rule("native_group_norm")
def _group_norm(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
    """Channels of one group share their statistics: they can go only together. Without scale and shift there is no
    tensor from which the module could learn its new number of groups: pinned."""
    data, weight, bias, groups = args[0], args[1], args[2], int(args[6])
    if weight is None:
        tracer.pin_all(args)
        return
    channels = _channels(tracer, data, axis=1)
    grouped = channels.reshape(groups, -1)
    tracer.ledger.unite(grouped[:, :1], grouped, tracer.reason)
    _with_parameters(tracer, channels, ((weight, "affine"), (bias, "affine")))
    tracer.set_labels(output[0], _along(channels.abs(), output[0], axis=1))


def _with_parameters(tracer: Tracer, channels: Tensor, tensors: tuple[tuple[Tensor | None, str], ...]) -> None:
    for tensor, role in tensors:
        if tensor is not None:
            view = tracer.parameter_view(tensor)
            labels = tracer.labels(tensor) if view is None else tracer.axis_labels(view[0], 0, role)
            tracer.ledger.unite(channels, labels, tracer.reason)


def _add_bias(tracer: Tracer, bias: Tensor | None, produced: Tensor) -> None:
    if bias is not None:
        view = tracer.parameter_view(bias)
        labels = tracer.labels(bias) if view is None else tracer.axis_labels(view[0], 0, "out")
        tracer.ledger.unite(produced, labels, tracer.reason)


def _channels(tracer: Tracer, data: Tensor, *, axis: int) -> Tensor:
    """One label per channel: everything else along the other axes is mixed."""
    others = [other for other in range(data.ndim) if other != axis % data.ndim]
    return tracer.ledger.mix(tracer.labels(data), others, tracer.reason).flatten().expand(data.shape[axis])


def _along(labels: Tensor, output: Tensor, *, axis: int) -> Tensor:
    """A label vector as labels of `output`, along `axis`."""
    shape = [1] * output.ndim
    shape[axis] = len(labels)
    return compact(labels.reshape(shape)).expand(output.shape)
