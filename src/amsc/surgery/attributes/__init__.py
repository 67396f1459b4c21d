"""Sizes that modules store beside their tensors follow the cut, so that their own forward keeps working."""

from amsc.surgery.attributes.config import follow_config
from amsc.surgery.attributes.follow import OwnedCuts, follow_cuts, owned_cuts
from amsc.surgery.attributes.following import set_sizes_at, sizes_now

__all__ = ["OwnedCuts", "follow_config", "follow_cuts", "owned_cuts", "set_sizes_at", "sizes_now"]
