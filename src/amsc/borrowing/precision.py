"""Double precision where the device has it, and on the CPU where it has not."""

import torch
from torch import Tensor

__all__ = ["has_double", "in_double"]

WITHOUT_DOUBLE = ("mps",)


def has_double(device: torch.device) -> bool:
    """Whether tensors in float64 can be there."""
    return device.type not in WITHOUT_DOUBLE


def in_double(tensor: Tensor) -> Tensor:
    """The tensor in float64 (complex128 if it is complex), moved to the CPU first if its device has none."""
    kind = torch.complex128 if tensor.is_complex() else torch.float64
    return (tensor if has_double(tensor.device) else tensor.cpu()).to(kind)
