"""The same random numbers for what two networks have in common, whatever one of them is without."""

import zlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from amsc.borrowing import copied_inputs, devices_of, generator_states, run_model, seed_generators
from amsc.surgery.inputs import SEED

__all__ = ["EqualDraws", "Shapes", "first_changed", "run_with_equal_draws"]

Shapes = Mapping[str, tuple[int, ...]]
"""By module, operator and number the shape of what a random operator has drawn."""


def run_with_equal_draws(model: nn.Module, inputs: Any) -> tuple[Any, Shapes]:
    """The output for a copy of `inputs` as `EqualDraws` makes it, and the shapes of what was drawn: none for nearly all
    networks, which run once and as they are."""
    devices = devices_of(model)
    seed_generators(SEED, devices)
    before = generator_states(devices)
    output = run_model(model, copied_inputs(inputs))
    if generator_states(devices) == before:
        return output, {}
    with EqualDraws(model) as draws:
        output = run_model(model, copied_inputs(inputs))
    return output, draws.shapes


def first_changed(before: Shapes, after: Shapes) -> str:
    """The first draw that has not the shape that it had, in words; "" if there is none."""
    for where, shape in before.items():
        if after.get(where, shape) != shape:
            return f"{where}: {shape} before, {after[where]} after"
    return ""


class EqualDraws(TorchDispatchMode):
    """A context in which every random operator draws by where it runs: by its module, and by how many that has run.

    In a network without a block the other modules then draw what they draw with it. One seed for the whole run would
    not do: what runs behind the block would draw other numbers.

    A cut that changes the shape of a draw changes its numbers too: they could be the same only if the larger shape were
    drawn both times, and which of its positions are left is not known here. `shapes` tells of such draws.

        with EqualDraws(model) as draws:
            output = model(inputs)
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._model, self._stack, self._hooks = model, [""], list[Any]()
        self._devices = devices_of(model)
        self._counts: Counter[str] = Counter()

    def __enter__(self) -> "EqualDraws":
        for name, module in self._model.named_modules():
            self._hooks.append(module.register_forward_pre_hook(lambda *_, name=name: self._stack.append(name)))
            self._hooks.append(module.register_forward_hook(lambda *_: self._leave(), always_call=True))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for hook in self._hooks:
            hook.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        where = f"{func} in {self._stack[-1] or 'the model'}"
        self._counts[where] += 1
        where += f", call {self._counts[where]}" if self._counts[where] > 1 else ""
        seed = zlib.crc32(where.encode())
        seed_generators(seed, self._devices)
        if (own := kwargs.get("generator")) is not None:
            kwargs["generator"] = torch.Generator(own.device).manual_seed(seed)
        output = func(*args, **kwargs)
        drawn = next(leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor))
        self.shapes[where] = tuple(drawn.shape)
        return output

    def _leave(self) -> None:
        self._stack.pop()
