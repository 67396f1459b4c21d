"""What goes into a block, and what comes out of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from amsc.borrowing import borrowed
from amsc.criteria.scene import Scene
from amsc.data import batch_size_of, spread_batches
from amsc.errors import SettingsError
from amsc.structure.parts import Block, BlockKind
from amsc.surgery import stand_in
from amsc.training.steps.step import device_of, forward

__all__ = ["Ends", "ends_of"]


@dataclass(frozen=True, eq=False)
class Ends:
    """What a block was given and what it returned, of the same shape, for one batch, and the targets of that."""

    before: Tensor
    after: Tensor
    target: Any


def ends_of(scene: Scene, block: Block, *, examples: int) -> list[Ends]:
    """The ends of `block` for training batches of so many examples, rounded up to whole batches.

    Raises:
        SettingsError: the block does not return its input when it is gone.
    """
    if block.kind is not BlockKind.IDENTITY:
        raise SettingsError(f"gone, it leaves {block.kind.leaves}, and not its input to compare its output with")
    count = -(-examples // batch_size_of(scene.data))
    return list(_ends(scene, scene.model.get_submodule(block.name), stand_in(block.call), count))


def _ends(scene: Scene, module: nn.Module, kept: nn.Module, count: int) -> Iterator[Ends]:
    given: list[Any] = []
    pairs: list[tuple[Tensor, Tensor]] = []

    def enter(_: nn.Module, args: Any, kwargs: Any) -> None:
        given.append([_copy(leaf) for leaf in pytree.tree_leaves(kept(*args, **kwargs))])

    def leave(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        leaves = zip(given.pop(), pytree.tree_leaves(output), strict=False)
        pairs.extend((old, _copy(new)) for old, new in leaves if _is_changed(old, new))

    with borrowed(scene.model):
        hooks = [
            module.register_forward_pre_hook(enter, with_kwargs=True),
            module.register_forward_hook(leave, with_kwargs=True),
        ]
        try:
            for inputs, target in spread_batches(scene.data, "train", count):
                pairs.clear()
                forward(scene.model, inputs, device_of(scene.model))
                yield Ends(*pairs[0], target)
        finally:
            for hook in hooks:
                hook.remove()


def _copy(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf


def _is_changed(old: Any, new: Any) -> bool:
    """Whether both are numbers of the same shape: not masks, caches or attention weights."""
    return isinstance(old, Tensor) and isinstance(new, Tensor) and old.is_floating_point() and old.shape == new.shape
