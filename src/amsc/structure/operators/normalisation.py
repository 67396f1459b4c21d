"""Normalisations: statistics, scales and shifts go with their channel; those over channels are not exact."""

from typing import Any

from torch import Tensor

from amsc.structure.labels.combine import Layers, Operand, combine
from amsc.structure.labels.ledger import compact, core
from amsc.structure.operators.registry import FactRule, Rule, collector, product
from amsc.structure.tracing.tracer import Tracer

__all__ = ["FACTS", "RULES"]

RULES: dict[str, Rule] = {}
FACTS: dict[str, FactRule] = {}
_rule = collector(RULES, FACTS)


@_rule("native_batch_norm", fact=product(1, plus=2))
@_rule("_native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm")
@_rule("_batch_norm_with_update miopen_batch_norm")
def _batch_norm(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
    """Channel by channel: its statistics, scale and shift go with the channel. With scale and shift zeroed
    it yields zero, whatever comes in; without them the running mean is left."""
    data, weight, bias, mean, variance = args[:5]
    if func._schema.name == "aten::_native_batch_norm_legit" and not isinstance(mean, Tensor):
        mean = variance = None
    channels = tracer.labels.channels(data)
    roles = ((weight, "affine"), (bias, "affine"), (mean, "statistic"), (variance, "statistic"))
    layers = _with_parameters(tracer, channels, [(tensor, role) for tensor, role in roles if tensor is not None])
    is_zero = (weight is not None and bias is not None) or mean is None
    _set_along(tracer, output, [layer.abs() if is_zero else -layer.abs() for layer in layers], axis=1)


@_rule("native_group_norm", fact=product(0, 1, plus=2))
def _group_norm(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
    """Channels of one group share their statistics: they can go only together (of one single group, not exactly).
    Without scale and shift there is no tensor from which the module could learn its new number of groups: pinned."""
    data, weight, bias, groups = args[0], args[1], args[2], int(args[6])
    if weight is None:
        tracer.pin_all(args, "has no scale from which its new number of groups could be told; give it affine=True")
        return
    channels = tracer.labels.channels(data)
    for layer in channels.layers:
        if groups > 1:
            grouped = core(layer).reshape(groups, -1)
            tracer.ledger.unite(grouped[:, :1], grouped, tracer.reason)
        else:
            tracer.ledger.read(layer, [0], f"{tracer.reason} normalises over channels", takes_zeros=False)
    given = [(tensor, "affine") for tensor in (weight, bias) if tensor is not None]
    layers = _with_parameters(tracer, channels, given)
    is_zero = bias is not None
    _set_along(tracer, output, [layer.abs() if is_zero else -layer.abs() for layer in layers], axis=1)


# (_fused_rms_norm: whole on some devices in versions of torch in which it is not composite.)
@_rule("native_layer_norm", fact=product(0, 2, plus=3))
@_rule("_fused_rms_norm", fact=product(0, 2))
def _layer_norm(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
    """Over the last axes. What goes from these changes the statistics of the rest, which is not exact; what goes
    across them (a head whose dimensions are normalised) does not."""
    data, shape, weight = args[:3]
    is_rms = "rms" in func._schema.name
    bias = None if is_rms else args[3]
    axes = list(range(data.ndim - len(shape), data.ndim))
    layers = tracer.labels.layers(data)
    for layer in layers:
        tracer.ledger.read(layer, axes, f"{tracer.reason} normalises over channels", takes_zeros=False)
    operands, affine = [Operand(layers, frozenset(range(data.ndim)))], []
    for tensor in (weight, bias):
        if tensor is not None:
            view = tracer.parameters.view(tensor)
            own = tracer.labels.layers(tensor)
            if view is not None:
                own = tracer.parameters.layers(tensor, *view, ["affine"] * tensor.ndim)
            spread = tuple(compact(layer.expand(data.shape)) for layer in own)
            affine.append(Operand(spread, frozenset(axis for axis in axes if data.shape[axis] > 1)))
    # zero where scale and shift are, or where the data is and nothing is added after it
    operands += affine

    def gives_zero(is_zero: tuple[bool, ...]) -> bool:
        scaled = bool(affine) and all(is_zero[1:])
        return scaled or (is_rms and any(is_zero))

    result = combine(tracer.ledger, operands, gives_zero, tracer.reason)
    tracer.labels.set_layers(output[0] if isinstance(output, tuple | list) else output, result)


@_rule("_weight_norm_interface")
def _weight_norm(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
    """v * g / |v|, the norm over all axes but one. A zero of g silences a channel; v must not be zeroed (0 / 0)."""
    v, g = args[:2]
    axis = (args[2] if len(args) > 2 else kwargs.get("dim", 0)) % v.ndim
    own = _parameter_or_layers(tracer, v, "statistic")
    inner = [a for a in range(v.ndim) if a != axis]
    for layer in own:
        tracer.ledger.read(layer, inner, f"{tracer.reason} normalises the weight over them", takes_zeros=False)
    scale = tuple(compact(layer.expand(v.shape)) for layer in _parameter_or_layers(tracer, g, "affine"))
    operands = [Operand(own, frozenset(range(v.ndim))), Operand(scale, frozenset([axis]))]
    result = combine(tracer.ledger, operands, lambda is_zero: is_zero[1], tracer.reason)
    tracer.labels.set_layers(output[0] if isinstance(output, tuple | list) else output, result)


def _parameter_or_layers(tracer: Tracer, tensor: Tensor, role: str) -> Layers:
    view = tracer.parameters.view(tensor)
    return (
        tracer.labels.layers(tensor) if view is None else tracer.parameters.layers(tensor, *view, [role] * tensor.ndim)
    )


def _with_parameters(tracer: Tracer, channels: Operand, tensors: list[tuple[Tensor, str]]) -> Layers:
    """Layers of the channels united with scale, shift and statistics."""
    operands = [channels]
    for tensor, role in tensors:
        own = _parameter_or_layers(tracer, tensor, role)
        operands.append(Operand(own, frozenset([0])))
    return combine(tracer.ledger, operands, all, tracer.reason)


def _set_along(tracer: Tracer, output: Any, layers: list[Tensor], *, axis: int) -> None:
    first = output[0] if isinstance(output, tuple | list) else output
    shape = [1] * first.ndim
    shape[axis] = -1
    tracer.labels.set_layers(first, [core(layer).reshape(shape) for layer in layers])
