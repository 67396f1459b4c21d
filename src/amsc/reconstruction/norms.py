"""BatchNorm set to the statistics of what it normalises, with scale and shift such that evaluation is unchanged."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from amsc.borrowing import borrowed, unfused_attention
from amsc.parallel import summed, told_of_failure
from amsc.reconstruction.batches import is_for_all, own_batches, run
from amsc.reconstruction.chain import argument
from amsc.reconstruction.moments import exact
from amsc.reconstruction.watch import Names, Watch

__all__ = ["settle"]


@dataclass(eq=False)
class _Norm:
    """A BatchNorm's own tensors, and the sums over what it normalises."""

    mean: Tensor
    variance: Tensor
    scale: Tensor
    shift: Tensor
    epsilon: float
    sums: Tensor
    squares: Tensor
    count: int = 0

    def add(self, values: Tensor) -> None:
        """One batch, its channels along the second axis. Squares are taken from the running mean, which is near."""
        rows = exact(values.movedim(1, -1).flatten(0, -2)) - exact(self.mean)
        self.count += len(rows)
        self.sums += rows.sum(0)
        self.squares += rows.square().sum(0)

    def pool(self) -> None:
        """Take in the batches of all processes."""
        count, self.sums, self.squares = summed(
            [torch.tensor(self.count, device=self.sums.device), self.sums, self.squares]
        )
        self.count = int(count)

    def settle(self) -> None:
        """Take on the new statistics, and give what they change to scale and shift."""
        off = self.sums / self.count
        variance = (self.squares / self.count - off.square()).clamp(min=0) * (self.count / max(1, self.count - 1))
        ratio = ((variance + self.epsilon) / (exact(self.variance) + self.epsilon)).sqrt()
        old = exact(self.scale) / (exact(self.variance) + self.epsilon).sqrt()
        if not bool((torch.isfinite(ratio) & torch.isfinite(off)).all()):
            return
        self.shift.add_((old * off).to(self.shift))
        self.scale.mul_(ratio.to(self.scale))
        self.mean.add_(off.to(self.mean))
        self.variance.copy_(variance.to(self.variance))


def settle(model: nn.Module, batches: Sequence[Any], means: Collection[str]) -> None:
    """Let the BatchNorms with these running means agree in training and in evaluation, in place.

    In evaluation they are the same function as before; so is a training batch, as nearly as its own statistics are
    those of the `batches`. One that is called several times, or whose scale and shift are missing, frozen or shared,
    stays as it is."""
    watch = _Statistics(Names.of(model), means)

    def look() -> None:
        with borrowed(model), unfused_attention():
            for _, batch in own_batches(batches):
                run(model, batch, watch)

    told_of_failure(look)
    with torch.no_grad():
        for norm in watch.found.values():
            if not is_for_all(batches):
                norm.pool()
            if norm.count:
                norm.settle()


class _Statistics(Watch):
    def __init__(self, names: Names, means: Collection[str]) -> None:
        super().__init__(names)
        self._means = means
        self.found: dict[str, _Norm] = {}

    def is_followed(self, name: str) -> bool:
        return False

    def normalised(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        names = ("input", "running_mean", "running_var", "weight", "bias")
        values, mean, *own = (argument(args, kwargs, place, name, None) for place, name in enumerate(names))
        name = self.names.of_own(mean)
        if name is None or name not in self._means or any(self.names.of_own(tensor) is None for tensor in own):
            return
        if name not in self.found:
            zeros = torch.zeros_like(exact(mean))
            variance, scale, shift = own
            epsilon = argument(args, kwargs, 7, "eps", 1e-5)
            self.found[name] = _Norm(mean, variance, scale, shift, epsilon, zeros, zeros.clone())
        self.found[name].add(values)
