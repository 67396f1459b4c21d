"""What a scan is asked for, once it is known to be possible."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from amsc.data import Data
from amsc.errors import SettingsError, TargetError
from amsc.jobs.checks import check_kinds, chosen_settings, chosen_task
from amsc.jobs.imitating import data_for
from amsc.limits.target import Target
from amsc.settings import Settings
from amsc.tasks import Classification, Task
from amsc.training import DIMENSIONS, NoProgress, Progress

__all__ = ["ScanRequest", "checked_share"]


@dataclass(frozen=True, eq=False)
class ScanRequest:
    """The arguments of `amsc.scan`; `checked` fills in what was left open."""

    model: nn.Module
    example_inputs: Any
    data: Data
    examples: int
    power: float
    dimensions: str
    shares: Sequence[float]
    evaluate: bool
    latency: bool
    reconstruct: bool
    task: Task = field(default_factory=Classification)
    settings: Settings = field(default_factory=Settings)
    progress: Progress = field(default_factory=NoProgress)
    name: str = ""

    def checked(self, task: Task | None, settings: Settings | None, progress: Progress, name: str) -> "ScanRequest":
        """The request with these, or what is usual for None, once all is known to be of the right kind and possible.

        Raises:
            TargetError, SettingsError, ModelError, DataError: see `amsc.scan`.
        """
        choices = chosen_settings(settings, self.settings)
        judge = chosen_task(task, choices)
        check_kinds(self.model, self.data, choices)
        self._check_numbers()
        return replace(
            self,
            data=data_for(judge, self.data, self.model, is_watched=True),
            task=judge,
            settings=choices,
            progress=progress,
            name=name or type(self.model).__name__,
        )

    @property
    def is_reconstructed(self) -> bool:
        """Whether the networks are reconstructed: where that is asked for or they are judged, unless it is off."""
        return bool(self.settings.reconstruction) and (self.evaluate or self.reconstruct)

    def _check_numbers(self) -> None:
        examples, power = self.examples, self.power
        if isinstance(examples, bool) or not isinstance(examples, int) or examples < 1:
            raise SettingsError(f"examples: expected a whole number, 1 or more; got {examples!r}")
        if isinstance(power, bool) or not isinstance(power, int | float) or not 0 <= power <= 4:
            raise SettingsError(f"power: expected a number from 0 to 4, such as 1 or 0.5; got {power!r}")
        if self.dimensions not in DIMENSIONS:
            raise SettingsError(f"dimensions: expected one of {', '.join(DIMENSIONS)}, got {self.dimensions!r}")
        if not self.shares:
            raise SettingsError("shares: expected at least one share of the MACs, such as [0.5]; got none")
        for share in self.shares:
            checked_share(share)


def checked_share(share: float) -> float:
    """`share`, once it is known to be a share of the MACs.

    Raises:
        TargetError: it is not.
    """
    amount = Target(macs=share).limits["macs"]
    if not amount.is_share:
        raise TargetError(f"expected a share of the dense network's MACs, such as 0.5; got {share!r}")
    return amount.number
