"""Finds what would make the processor wait for an accelerator, on a CPU: values asked for, masks as indices, transfers.

What has come to the host once (the outcome of `Tensor.cpu`, and what is computed from that alone) may be looked at.
"""

import traceback
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

ASKING = {"tolist", "numpy", "cpu", "item", "__array__"}
"""Methods that give values to Python."""
OPERATORS = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "_unique2", "bincount", "item"}
"""What an operator cannot return before the device has computed it: values, or as many as there happen to be."""
INDEXED = {"index", "index_put", "index_put_", "_unsafe_index", "_index_put_impl_"}


class Waits(TorchFunctionMode):
    """Inside of the `with`, `found` grows by a line for each wait: what was called, and from where."""

    def __init__(self, on_host: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.found: list[str] = []
        self._is_on_host = False
        self._dispatched = _Dispatched(self)
        for tensor in on_host:
            mark_as_host(tensor)

    def __enter__(self) -> "Waits":
        self._dispatched.__enter__()
        return super().__enter__()

    def __exit__(self, *args: Any) -> None:
        super().__exit__(*args)
        self._dispatched.__exit__(*args)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        is_on_host = bool(tensors) and all(getattr(tensor, "_on_host", False) for tensor in tensors)
        name = getattr(func, "__name__", "")
        before, self._is_on_host = self._is_on_host, self._is_on_host or is_on_host or name in ASKING
        if name in ASKING and not is_on_host and not before:
            self.add(name)
        try:
            result = func(*args, **(kwargs or {}))
        finally:
            self._is_on_host = before
        if name == "cpu":
            result = result.detach()  # on a CPU it is the tensor itself, which is not on the host
        if is_on_host or name == "cpu":
            for leaf in pytree.tree_leaves(result):
                if isinstance(leaf, Tensor):
                    mark_as_host(leaf)
        return result

    def add(self, name: str) -> None:
        frames = [f for f in traceback.extract_stack() if "/amsc/" in f.filename or "/optim/" in f.filename]
        place = f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else "?"
        self.found.append(f"{name} at {place}")

    def dispatched(self, name: str, args: Any) -> None:
        if self._is_on_host:
            return
        indices = args[1] if name in INDEXED else ()
        has_mask = any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in indices)
        if name in OPERATORS or has_mask:
            self.add(name)


class _Dispatched(TorchDispatchMode):
    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self._waits = waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._waits.dispatched(func.overloadpacket.__name__, args)
        return func(*args, **(kwargs or {}))


def mark_as_host(tensor: Tensor) -> None:
    """This tensor is on the host whatever the network's device is."""
    tensor._on_host = True  # type: ignore[attr-defined]
