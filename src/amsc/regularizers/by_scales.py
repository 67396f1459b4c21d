"""Regularizers of the scales of normalisations: they draw some to zero, with the channels that these scale."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import softshrink

from amsc.errors import SettingsError
from amsc.regularizers.parts import Going, GroupParts, Part
from amsc.regularizers.regularizer import Course, Regularizer

__all__ = ["Polarization", "Slimming", "polarized", "soft_threshold"]

SHARE = 0.25
"""How far slimming takes the largest scale that goes, of its way to zero: those that stay fall as well."""
L1 = 1.2
"""t of the polarization: how much the L1 norm counts beside the distance from the mean."""


class _OfScales(Regularizer):
    def __init__(self, groups: Sequence[GroupParts], course: Course, strength: float | None = None) -> None:
        bare = [group.name for group in groups if not group.scales]
        if bare:
            raise SettingsError(
                f"this regularizer draws scales of normalisations to zero, and the channels of {bare[0]} pass none"
                f"{f', nor do those of {len(bare) - 1} more groups' if len(bare) > 1 else ''}; choose "
                f'regularizer="dependency" or "growing", or keep what has none: keep={bare}'
            )
        super().__init__(groups, course, strength)

    def _change(self, change: Callable[[Tensor], Tensor]) -> None:
        """Put `change` of all scales, end to end, in their place."""
        parts = [part for group in self.groups for part in group.scales if part.parameter.requires_grad]
        if not parts:
            return
        values = [part.values().flatten() for part in parts]
        changed = change(torch.cat(values)).split([len(one) for one in values])
        for part, new in zip(parts, changed, strict=True):
            part.parameter.detach()[part.positions] = new

    def _largest(self, going: Going) -> float:
        """The largest scale, without its sign, of a channel that goes."""
        found = [_of(part, going[group.name]) for group in self.groups for part in group.scales]
        return max((float(scales.abs().max()) for scales in found if len(scales)), default=0.0)


def _of(part: Part, going: Tensor) -> Tensor:
    return part.values().flatten()[going.to(part.channels.device)[part.channels]]


class Slimming(_OfScales):
    """strength * sum |gamma| over all scales of channels that may go, by its proximal map: zeros are exact.

    Liu, Li, Shen, Huang, Yan and Zhang 2017 (Network slimming), whose code adds strength * sign(gamma) to the gradient
    and so comes near zero only."""

    def needed(self, going: Going) -> float:
        """What takes the largest scale among them a quarter of its way to zero, and smaller ones to it."""
        return SHARE * self._largest(going) / (self.course.steps * self.course.step_size)

    def apply(self, step: int, step_size: float) -> None:
        """gamma <- soft_threshold(gamma, strength * step size)."""
        self._change(lambda scales: soft_threshold(scales, self.strength * step_size))


class Polarization(_OfScales):
    """strength * (t ||gamma||_1 - ||gamma - mean(gamma)||_1) over all scales of channels that may go, kept within
    [0, a]: small ones are drawn to zero, large ones hardly.

    Zhuang, Zhang, Huang, Zeng, Shuang and Li 2020 (Neuron-level structured pruning using polarization regularizer).
    Their networks are trained with scales in [0, 1]; those of a trained network may be negative, so that here their
    magnitudes are polarized, and the largest that it came with is a. One step goes along the gradient of
    the second term and then through the proximal map of the first."""

    def __init__(self, groups: Sequence[GroupParts], course: Course, strength: float | None = None) -> None:
        super().__init__(groups, course, strength)
        every = {group.name: torch.ones(group.size, dtype=torch.bool) for group in groups}
        self.most = self._largest(every)

    def needed(self, going: Going) -> float:
        """What takes the largest scale among them to zero if it lies below the mean, and half of the others too."""
        return self._largest(going) / (self.course.steps * self.course.step_size * (L1 + 1))

    def apply(self, step: int, step_size: float) -> None:
        """Both parts of a step."""
        self._change(lambda scales: polarized(scales, self.strength * step_size, self.most))


def soft_threshold(values: Tensor, threshold: float) -> Tensor:
    """sign(x) max(|x| - threshold, 0), which minimises (z - x)^2 / 2 + threshold |z| over z."""
    return softshrink(values, threshold)


def polarized(scales: Tensor, step: float, most: float) -> Tensor:
    """The scales after a step of this size on their polarization: with u = |gamma| and s = sign(u - mean(u)),
    soft_threshold(u + step * (s - mean(s)), step * t), at most `most`, with the sign of gamma."""
    sizes = scales.abs()
    sides = (sizes - sizes.mean()).sign()
    moved = (sizes + step * (sides - sides.mean())).clamp(min=0)
    return soft_threshold(moved, step * L1).clamp(max=most) * scales.sign()
