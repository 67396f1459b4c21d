"""Multiply-adds, counted by running the model: independent of what the tracer believes."""

import warnings
from math import prod
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from amsc.borrowing import borrowed, run_model, unfused_attention

__all__ = ["count_macs"]


def count_macs(model: nn.Module, example_inputs: Any) -> int:
    """Multiply-adds of one forward pass in eval mode on `example_inputs`, whole batch.

    What `torch.utils.flop_counter` sees, halved (it counts two operations per multiply-add): convolutions and
    all matrix and matrix-vector products, attention included, without bias, normalisation, activation and
    pooling. Recurrent layers run in fused kernels it does not see: a warning says so. The model comes back
    as it was.

    Raises:
        ModelError: `model` is not a module.
        InputError: the model fails on the inputs.
    """
    counter = FlopCounterMode(display=False, custom_mapping=dict.fromkeys(_VECTOR_PRODUCTS, _vector_product))
    with borrowed(model), unfused_attention():
        hidden = [name for name, module in model.named_modules() if isinstance(module, nn.RNNBase)]
        if hidden:
            warnings.warn(f"the multiply-adds of recurrent layers are not counted: {', '.join(hidden)}", stacklevel=2)
        with counter:
            run_model(model, example_inputs)
    return int(counter.get_total_flops()) // 2


def _vector_product(*shapes: Any, **_: Any) -> int:
    """Operations of mv(A, x), dot(x, y) and addmv(b, A, x) from their arguments' shapes: two per element of
    the operand before the last."""
    sizes = [shape for shape in shapes if isinstance(shape, torch.Size)]
    return 2 * prod(sizes[-2])


# The counter of torch knows matrix-matrix products only.
_VECTOR_PRODUCTS = (torch.ops.aten.mv, torch.ops.aten.dot, torch.ops.aten.vdot, torch.ops.aten.addmv)
