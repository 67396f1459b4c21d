"""Sizes that modules store beside their tensors follow the cut, so that their own forward keeps working."""

from amsc.surgery.attributes.config import follow_config
from amsc.surgery.attributes.follow import follow_cuts, owned_cuts
from amsc.surgery.attributes.following import follow_stored

__all__ = ["follow_config", "follow_cuts", "follow_stored", "owned_cuts"]
