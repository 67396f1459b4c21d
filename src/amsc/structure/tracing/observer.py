"""The observed run: every operator of the user's own forward, and the module it runs in."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from amsc.borrowing import unfused_attention
from amsc.structure.tracing.tracer import Tracer

__all__ = ["Observer"]

_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd


class Observer(TorchDispatchMode):
    """Shows every operator that runs to its rule; the rules are in `amsc.structure.operators.table`.

    Args:
        tracer: what rules work with.
        rule_for: the rule of an operator.
        before: told of every operator and its arguments before it runs.
        aside: a context in which labels can be computed with while the network is running.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch asks. Guarding every operator against compilation would import torch._dynamo: more than a second."""
        return False

    def __init__(
        self,
        tracer: Tracer,
        rule_for: Callable[[Any], Callable[..., None]],
        before: Callable[[Any, Any, Any], None] = lambda func, args, kwargs: None,
        aside: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tracer, self.aside = tracer, aside
        self._rule_for, self._before = rule_for, before
        self.unscaled: Tensor | None = None  # the queries of an attention that is about to divide by their size
        self.after: Callable[[Any, Any, Any, Any], None] | None = None  # told of every operator that has run

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Observe everything that runs inside, and which module it runs in."""
        before = register_module_forward_pre_hook(self._enter)
        after = register_module_forward_hook(self._leave, always_call=True)
        try:
            with unfused_attention(), self, _AttentionScale(self):
                yield
        finally:
            before.remove()
            after.remove()

    def _enter(self, module: nn.Module, args: Any) -> None:
        self.tracer.running.enter(module)

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self.tracer.running.leave()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _is_composite(func):  # in inference mode they come whole: taken apart here, as autograd does otherwise
            with self:
                return func._op_dk(_COMPOSITE, *args, **kwargs)
        self._before(func, args, kwargs)
        output = func(*args, **kwargs)
        self.tracer.running.operator = str(func)
        with self.aside():
            if self.unscaled is not None:
                self._note_scale(self.unscaled)
            self.tracer.parameters.note_use(func, (args, kwargs), output, self.tracer.module)
            self._follow(func, args, kwargs, output)
            if self.after is not None:
                self.after(func, args, kwargs, output)
        return output

    def _follow(self, func: Any, args: Any, kwargs: Any, output: Any) -> None:
        try:
            self._rule_for(func)(self.tracer, func, args, kwargs, output)
        except Exception as error:  # a fault of ours, on arguments nobody thought of: all that it concerns stays
            self.tracer.running.operator += f" (its rule failed: {type(error).__name__}: {error})"
            warnings.warn(f"what {self.tracer.reason} touches is left as it is; please report this", stacklevel=2)
            self.tracer.pin_all((args, kwargs, output), "")

    def _note_scale(self, query: Tensor) -> None:
        self.unscaled = None
        reason = f"the scale of the attention in {self.tracer.module} is taken from the head size"
        for layer in self.tracer.labels.layers(query):
            self.tracer.ledger.read(layer, [layer.ndim - 1], reason, takes_zeros=False)


@cache
def _is_composite(func: Any) -> bool:
    """Whether the operator is written in terms of others for every device, its gradient too."""
    try:
        return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), _COMPOSITE))
    except RuntimeError:  # the dispatcher does not know it: one of TorchScript's own, such as prim::device
        return False


class _AttentionScale(TorchFunctionMode):
    """Attention without a given scale divides by the root of the head size: a removed dimension changes it."""

    def __init__(self, observer: Observer) -> None:
        super().__init__()
        self._observer = observer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and kwargs.get("scale") is None:
            self._observer.unscaled = args[0] if args else kwargs["query"]
        return func(*args, **kwargs)
