"""Peak memory of one forward pass: weights and the activations alive at once."""

import itertools
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from amsc.borrowing import borrowed, call_arguments, example_calls, map_tensors, run_model

__all__ = ["Activations", "input_bytes", "live_activations", "peak_memory", "weight_bytes"]


def weight_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers, every tensor once."""
    return sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))


def peak_memory(model: nn.Module, example_inputs: Any) -> int:
    """Largest number of bytes alive at once during one forward pass in eval mode without gradients.

    Weights, buffers and inputs (in memory of their own, if they are views) count as well as every tensor an operator
    returns, for as long as it lives. On the CPU this is the sum of the tensors' storages: what kernels use inside
    (im2col, blocked copies) and what the allocator keeps is not seen. On CUDA it is what the caching allocator reports
    for the pass (`torch.cuda.max_memory_allocated`, which is reset), kernels' workspaces included. The two are not
    comparable. The model comes back as it was.

    Raises:
        ModelError: `model` is not a module.
        InputError: the model fails on the inputs.
    """
    example_inputs = _own_inputs(example_inputs)
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


@dataclass(frozen=True)
class Activations:
    """The storages that a forward pass makes, in the order in which it does: the module in which they lived all their
    life, their bytes; and which of them (their numbers) are alive together at each moment before one of them dies."""

    modules: tuple[str, ...]
    sizes: tuple[int, ...]
    moments: tuple[tuple[int, ...], ...]


def live_activations(model: nn.Module, example_inputs: Any) -> Activations:
    """What a forward pass in eval mode without gradients holds besides weights, buffers and inputs.

    Raises:
        ModelError: `model` is not a module.
        InputError: the model fails on the inputs.
    """
    inputs = [leaf for leaf in pytree.tree_leaves(call_arguments(example_inputs)) if isinstance(leaf, Tensor)]
    with borrowed(model):
        running = _RunningModule(model)
        try:
            with _Births([*model.parameters(), *model.buffers(), *inputs], running) as births:
                run_model(model, example_inputs)
        finally:
            running.forget()
    left = set(births.now)
    modules = tuple("" if number in left else module for number, module in enumerate(births.modules))
    return Activations(modules, tuple(births.sizes), tuple(dict.fromkeys([*births.moments, births.now])))


def input_bytes(example_inputs: Any) -> int:
    """Bytes of the inputs, every tensor once; of views without what else is in their memory."""
    leaves = pytree.tree_leaves(call_arguments(example_inputs))
    return sum(leaf.nbytes for leaf in {id(leaf): leaf for leaf in leaves if isinstance(leaf, Tensor)}.values())


def _own_inputs(example_inputs: Any) -> Any:
    """The inputs, of several calls those of the first, in memory of their own, the same tensor the same again: a view
    keeps all alive that it looks at, such as the whole batch of a loader. What is not laid out in strides stays."""
    own: dict[int, Tensor] = {}

    def copied(tensor: Tensor) -> Tensor:
        return own.setdefault(id(tensor), tensor.clone() if tensor.layout == torch.strided else tensor)

    return map_tensors(copied, example_calls(example_inputs)[0])


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
        self._added(key, size)

    def _added(self, key: int, size: int) -> None:
        """Called for each new storage."""

    def _release(self, key: int, size: int) -> None:
        del self._seen[key]
        self._live -= size


class _RunningModule:
    """Knows which submodule is running: `name`."""

    def __init__(self, model: nn.Module) -> None:
        self._stack = [""]
        self._hooks = []
        for name, module in model.named_modules():
            enter = module.register_forward_pre_hook(lambda *_, name=name: self._stack.append(name))
            leave = module.register_forward_hook(lambda *_: self._leave(), always_call=True)
            self._hooks += [enter, leave]

    @property
    def name(self) -> str:
        return self._stack[-1]

    def forget(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _leave(self) -> None:
        self._stack.pop()


def _around(first: str, second: str) -> str:
    """The module around both."""
    pairs = zip(first.split("."), second.split("."), strict=False)
    return ".".join(one for one, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


class _Births(_LiveStorages):
    """Which storages are made, where, and which are alive together."""

    def __init__(self, tensors: Iterable[Tensor], running: _RunningModule) -> None:
        self.modules: list[str] = []
        self.sizes: list[int] = []
        self.moments: list[tuple[int, ...]] = []
        self._numbers: dict[int, int] = {}
        self._has_grown = False
        self._running: _RunningModule | None = None
        super().__init__(tensors)
        self._running = running

    @property
    def now(self) -> tuple[int, ...]:
        return tuple(sorted(self._numbers.values()))

    def _added(self, key: int, size: int) -> None:
        if self._running is not None:
            self._numbers[key] = len(self.sizes)
            self.modules.append(self._running.name)
            self.sizes.append(size)
            self._has_grown = True

    def _release(self, key: int, size: int) -> None:
        super()._release(key, size)
        if key in self._numbers:
            if self._has_grown:
                self.moments.append(self.now)
            self._has_grown = False
            number = self._numbers.pop(key)
            self.modules[number] = _around(self.modules[number], self._running.name if self._running else "")
