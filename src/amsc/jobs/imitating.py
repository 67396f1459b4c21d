"""What the task `imitation` asks of a run: targets from the dense network, and settings that mean something."""

from torch import nn

from amsc.borrowing import copied
from amsc.data import Data, Imitated
from amsc.errors import SettingsError
from amsc.settings import Settings
from amsc.tasks import Imitation, Task

__all__ = ["check_imitation", "data_for"]


def data_for(task: Task, data: Data, dense: nn.Module, *, is_watched: bool = False) -> Data:
    """The data that a task learns from and judges by: for imitation with what `dense` returns as targets, or a copy of
    it where it is watched meanwhile."""
    if not isinstance(task, Imitation):
        return data
    return Imitated(data, copied(dense) if is_watched else dense)


def check_imitation(settings: Settings) -> None:
    """Refuse settings that mean nothing where the dense network is what is learnt.

    Raises:
        SettingsError: it is to be trained, or distilled as well, or depth is to end by comparison with it.
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
    if settings.depth_rule == "one-standard-error":
        raise SettingsError(
            "depth_rule='one-standard-error' goes on while a smaller network is as good as the dense one, but with the "
            "task imitation the dense network is compared with itself, and perfect: choose 'equal-cost' or 'share'"
        )
