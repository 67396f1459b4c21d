"""What the task `imitation` asks of a run: targets from the dense network, and settings that mean something."""

from dataclasses import replace

from torch import nn

from amsc.borrowing import copied
from amsc.data import Data, Imitated
from amsc.errors import SettingsError
from amsc.settings import Settings
from amsc.tasks import Imitation, Task

__all__ = ["check_imitation", "data_for", "settings_for"]


def data_for(task: Task, data: Data, dense: nn.Module, *, is_watched: bool = False) -> Data:
    """The data that a task learns from and judges by: for imitation with what `dense` returns as targets, or a copy of
    it where it is watched meanwhile."""
    if not isinstance(task, Imitation):
        return data
    return Imitated(data, copied(dense) if is_watched else dense)


def settings_for(task: Task, settings: Settings) -> Settings:
    """The settings of a run with this task.

    Depth cannot end by the one-standard-error rule where the dense network is compared with itself: it is perfect, on
    every example, and no smaller network is as good by any standard error. Networks at equal cost can be compared.
    """
    if isinstance(task, Imitation) and settings.depth_rule == "one-standard-error":
        return replace(settings, depth_rule="equal-cost")
    return settings


def check_imitation(settings: Settings) -> None:
    """Refuse settings that mean nothing where the dense network is what is learnt.

    Raises:
        SettingsError: it is to be trained, or distilled as well.
    """
    if settings.dense_epochs:
        raise SettingsError(
            f"dense_epochs={settings.dense_epochs:g} would train the dense network, but with the task imitation its "
            "answers are the targets; give it trained weights, or a task with labels, and leave dense_epochs at 0"
        )
    if settings.distillation:
        raise SettingsError(
            f"distillation={settings.distillation:g} adds the dense network's answers to what labels teach; with the "
            "task imitation they are all that is taught already: leave distillation at 0"
        )
