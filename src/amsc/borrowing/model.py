"""A model that belongs to somebody else: borrow it, and give it back as it was."""

import contextlib
import copy
import copyreg
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from amsc.borrowing.randomness import devices_of, forked
from amsc.errors import ModelError

__all__ = ["borrowed", "copied", "named_tensors", "set_tensor", "storage_id", "unchanged_on_error"]

ATOMS = (bool, int, float, str, type(None))


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by name, every tensor once (under its first name)."""
    tensors: dict[str, Tensor] = dict(model.named_parameters())
    return tensors | dict(model.named_buffers())


def set_tensor(model: nn.Module, name: str, value: Tensor) -> None:
    """Put `value` in the place of the parameter or buffer `name`, and of everything tied to it."""
    old = named_tensors(model)[name]
    new = nn.Parameter(value, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else value
    for module in model.modules():
        tables: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for table in tables:
            table.update({key: new for key, tensor in table.items() if tensor is old})


def copied(model: nn.Module, replaced: Mapping[int, Any] | None = None) -> nn.Module:
    """A copy of `model` that shares nothing with it, without the gradients, with other tensors in the place of those
    with the ids in `replaced`.

    Raises:
        ModelError: it cannot be copied.
    """
    memo = dict(replaced or {})
    try:
        _copy_plain_modules(model, memo)
        return copy.deepcopy(model, memo)
    except Exception as error:  # whatever the user's own __deepcopy__ or __reduce__ raises
        raise ModelError(
            f"{type(model).__name__} cannot be copied ({type(error).__name__}: {error}); amsc works on a copy. Remove"
            " what copy.deepcopy cannot take (open files, locks, stored activations), or give the model a __deepcopy__"
        ) from error


def _copy_plain_modules(model: nn.Module, memo: dict[int, Any]) -> None:
    """Put copies of all modules that are copied in no way of their own into the `memo` of a deepcopy.

    What deepcopy does, without asking for each of the dozens of attributes, keys and empty tables of a module how it is
    to be copied: several times as fast where the tensors are small or are not copied."""
    modules = [module for module in model.modules() if id(module) not in memo and _is_plain(type(module))]
    memo |= {id(module): object.__new__(type(module)) for module in modules}
    for module in reversed(modules):  # those inside before those around them
        state = module.__getstate__()
        memo[id(module)].__setstate__({name: _copied_attribute(name, value, memo) for name, value in state.items()})


def _is_plain(kind: type) -> bool:
    """Whether modules of this class are copied as any module is: new, with a copy of its attributes."""
    names = ("__reduce_ex__", "__reduce__", "__getstate__", "__new__")
    return (
        all(getattr(kind, name) is getattr(nn.Module, name) for name in names)
        and not hasattr(kind, "__deepcopy__")
        and not any(vars(base).get("__slots__") for base in kind.__mro__)
        and kind not in copyreg.dispatch_table
    )


def _copied_attribute(name: str, value: Any, memo: dict[int, Any]) -> Any:
    if type(value) in ATOMS:
        return value
    if id(value) in memo:
        return memo[id(value)]
    if type(value) in (dict, OrderedDict, set):
        if not value:
            return memo.setdefault(id(value), type(value)())
        if type(value) is dict and name in ("_modules", "_parameters", "_buffers"):
            return {key: _copied_attribute(key, item, memo) for key, item in value.items()}
    return copy.deepcopy(value, memo)


def storage_id(tensor: Tensor) -> int:
    """The same number for tensors that share their memory (as long as one of them lives)."""
    return int(tensor.untyped_storage()._cdata)


@contextlib.contextmanager
def borrowed(model: nn.Module) -> Iterator[nn.Module]:
    """The model in eval mode and without gradient recording; whatever happens inside, its train/eval
    flags and other attributes, its buffers, gradients and the random number generators come back as they were.

    Raises:
        ModelError: `model` is not an nn.Module.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"expected a torch.nn.Module, got {type(model).__name__}")
    attributes = [(module, _attributes(module)) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    try:
        with forked(devices_of(model)), torch.no_grad():
            model.eval()
            yield model
    finally:
        for module, known in attributes:
            _give_back(module, known)
        for parameter, gradient in gradients:
            parameter.grad = gradient
        with torch.no_grad():
            for buffer, old in buffers:
                buffer.copy_(old)


@contextlib.contextmanager
def unchanged_on_error(model: nn.Module) -> Iterator[None]:
    """A context in which modules may be changed and exchanged, tensors exchanged but not written to. After an error in
    it all is as it was: classes and attributes of all modules, what their dicts hold, and their configurations."""
    classes = [(module, type(module)) for module in model.modules()]
    attributes = [(module, _attributes(module)) for module, _ in classes]
    held = [value for module, _ in classes for value in vars(module).values() if hasattr(value, "to_dict")]
    configs = [_Table(vars(value)) for value in held if hasattr(value, "__dict__")]
    try:
        yield
    except BaseException:
        for module, kind in classes:
            module.__class__ = kind
        for module, known in attributes:
            _give_back(module, known)
        for config in configs:
            config.given_back()
        raise


def _attributes(module: nn.Module) -> dict[str, Any]:
    """What the module's attributes are, with copies of its tables: parameters, submodules, hooks, caches."""
    return {key: _Table(value) if isinstance(value, dict) else value for key, value in vars(module).items()}


def _give_back(module: nn.Module, known: Mapping[str, Any]) -> None:
    """Undo what a forward has set, replaced or added."""
    own = vars(module)
    for key in [key for key in own if key not in known]:
        del own[key]
    for key, value in known.items():
        own[key] = value.given_back() if isinstance(value, _Table) else value


class _Table:
    """A dict among the attributes of a module, and what it holds."""

    def __init__(self, table: dict[Any, Any]) -> None:
        self._table, self._items = table, list(table.items())

    def given_back(self) -> dict[Any, Any]:
        """The same dict with what it held."""
        own = list(self._table.items())
        if len(own) != len(self._items) or any(a[1] is not b[1] for a, b in zip(own, self._items, strict=True)):
            self._table.clear()
            self._table.update(self._items)
        return self._table
