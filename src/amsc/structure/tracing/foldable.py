"""Which layers can have in their bias what they read of a constant."""

from torch import nn
from torch.nn.modules.conv import _ConvNd

__all__ = ["takes_constants"]

READERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def takes_constants(module: nn.Module) -> bool:
    """Whether what `module` computes from a constant input channel is a constant: it is a linear layer, or a
    convolution in which every channel is read alike and the constant meets no zeros at the border."""
    if not any(isinstance(module, reader) and type(module).forward is reader.forward for reader in READERS):
        return False
    if not isinstance(module, _ConvNd):
        return True
    is_padded = module.padding_mode == "zeros" and any(module._reversed_padding_repeated_twice)
    return module.groups == 1 and not is_padded
