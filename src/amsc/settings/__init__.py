"""What a run needs to be repeated: every choice, the model, the data and the target, and the file that holds them."""

from amsc.settings.allowed import BLOCK_CRITERIA, CHOICES, CRITERIA, REGULARIZERS
from amsc.settings.choices import EFFORTS, Settings, plain_settings
from amsc.settings.file import RunSettings, read_settings, read_toml, write_settings

__all__ = [
    "BLOCK_CRITERIA",
    "CHOICES",
    "CRITERIA",
    "EFFORTS",
    "REGULARIZERS",
    "RunSettings",
    "Settings",
    "plain_settings",
    "read_settings",
    "read_toml",
    "write_settings",
]
