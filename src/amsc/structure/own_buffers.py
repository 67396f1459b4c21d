"""What a block that is empty has left: its own buffers."""

from collections.abc import Collection

from torch import Tensor, nn

from amsc.structure.names import is_in_any

__all__ = ["own_buffers"]


def own_buffers(model: nn.Module, blocks: Collection[str]) -> list[Tensor]:
    """The buffers of floating point that these blocks hold and nothing else does: frozen scales and shifts, which are
    not zero when all parameters are."""
    held = [(is_in_any(name, blocks), buffer) for name, buffer in model.named_buffers(remove_duplicate=False)]
    outside = {id(buffer) for is_inner, buffer in held if not is_inner}
    return [b for is_inner, b in held if is_inner and id(b) not in outside and b.is_floating_point()]
