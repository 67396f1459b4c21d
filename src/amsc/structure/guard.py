"""A forward that writes to its own parameters: what it overwrites is kept, and given back."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Guard"]


class Guard(TorchDispatchMode):
    """Keeps a copy of each of `tensors` from before the first operator that writes to it; on leaving, puts it back."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch asks; see `Tracer`."""
        return False

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._by_storage = {_storage(tensor): tensor for tensor in tensors.values() if tensor.layout == torch.strided}
        self._saved: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.keep(func, args, kwargs)
        return func(*args, **(kwargs or {}))

    def keep(self, func: Any, args: Any, kwargs: Any) -> None:
        """Copy what `func` is about to overwrite."""
        if func._schema.is_mutable:
            for leaf in pytree.tree_leaves((args, kwargs)):
                if isinstance(leaf, Tensor) and leaf.layout == torch.strided:
                    written = self._by_storage.pop(_storage(leaf), None)
                    if written is not None:
                        self._saved.append((written, written.detach().clone()))

    def give_back(self) -> None:
        """Put back what was overwritten."""
        with torch.no_grad():
            for tensor, old in self._saved:
                tensor.copy_(old)
        self._saved.clear()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self.give_back()


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
