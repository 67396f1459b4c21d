"""Peak memory of one forward pass: weights and the activations alive at once."""

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from amsc.model_access import borrowed, call_arguments, run_model

__all__ = ["peak_memory", "weight_bytes"]


def weight_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers, every tensor once."""
    return sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))


def peak_memory(model: nn.Module, example_inputs: Any) -> int:
    """Largest number of bytes alive at once during one forward pass in eval mode without gradients.

    Weights, buffers and inputs count as well as every tensor an operator returns, for as long as it lives. On
    the CPU this is the sum of the tensors' storages: what kernels use inside (im2col, blocked copies)
    and what the allocator keeps is not seen. On CUDA it is what the caching allocator reports for the
    pass (`torch.cuda.max_memory_allocated`, which is reset), kernels' workspaces included. The two
    are not comparable. The model comes back as it was.

    Raises:
        ModelError: `model` is not a module.
        InputError: the model fails on the inputs.
    """
    inputs = [leaf for leaf in pytree.tree_leaves(call_arguments(example_inputs)) if isinstance(leaf, Tensor)]
    with borrowed(model):
        resident = [*model.parameters(), *model.buffers(), *inputs]
        device = next((tensor.device for tensor in resident if tensor.is_cuda), None)
        if device is not None:
            return _cuda_peak(lambda: run_model(model, example_inputs), resident, device)
        live = _LiveStorages(resident)
        with live:
            run_model(model, example_inputs)
        return live.peak


def _cuda_peak(run: Callable[[], Any], resident: Iterable[Tensor], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)  # weights, inputs, and whatever else lives there
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before + _LiveStorages(resident).peak


class _LiveStorages(TorchDispatchMode):
    """Sums the bytes of the storages it has seen and that are still alive; `peak` is the largest sum."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._live = 0
        # Held here, so that nothing is called back once the measurement is over.
        self._seen: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        for tensor in tensors:
            self._add(tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._add(leaf)
        return result

    def _add(self, tensor: Tensor) -> None:
        if tensor.layout != torch.strided:
            return
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen[key] = weakref.ref(storage, lambda _: self._release(key, size))
        self._live += size
        self.peak = max(self.peak, self._live)

    def _release(self, key: int, size: int) -> None:
        del self._seen[key]
        self._live -= size
