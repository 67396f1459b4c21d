"""A forward that writes to its own parameters: what it overwrites is kept, and given back."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from amsc.borrowing import storage_id

__all__ = ["Guard"]


class Guard:
    """Keeps a copy of each of `tensors` from before the first operator that writes to it, and puts it back."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._by_storage = {storage_id(tensor): tensor for tensor in tensors.values() if tensor.layout == torch.strided}
        self._saved: list[tuple[Tensor, Tensor]] = []

    def keep(self, func: Any, args: Any, kwargs: Any) -> None:
        """Copy what `func` is about to overwrite."""
        if func._schema.is_mutable:
            for leaf in pytree.tree_leaves((args, kwargs)):
                if isinstance(leaf, Tensor) and leaf.layout == torch.strided:
                    written = self._by_storage.pop(storage_id(leaf), None)
                    if written is not None:
                        self._saved.append((written, written.detach().clone()))

    def give_back(self) -> None:
        """Put back what was overwritten."""
        with torch.no_grad():
            for tensor, old in self._saved:
                tensor.copy_(old)
        self._saved.clear()
