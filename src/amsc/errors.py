"""Every error amsc raises on purpose, in one tree, and the class of its warnings.

A message says what was expected, what came (name, shape, value) and what to do next.
"""

__all__ = [
    "AmscError",
    "AmscWarning",
    "CutError",
    "DataError",
    "InputError",
    "ModelError",
    "NonFiniteLossError",
    "ParallelError",
    "RunFolderError",
    "SettingsError",
    "TargetError",
    "TrainingError",
    "UndefinedOutputError",
    "UndefinedScoreError",
    "UnknownSettingError",
    "UnknownTargetError",
    "VerificationError",
]


class AmscError(Exception):
    """Root of all errors that amsc raises on purpose; the command line exits with `exit_code`."""

    exit_code = 1


class AmscWarning(UserWarning):
    """Something that a run goes on with, but its outcome is probably not what was wanted."""


class ModelError(AmscError):
    """The model cannot be used: it fails, returns something odd, or its weights do not fit."""

    exit_code = 3


class InputError(AmscError):
    """Example inputs do not fit the model: wrong shape, device or type."""

    exit_code = 3


class DataError(AmscError):
    """The data cannot be used: missing, corrupt, empty, or labels the model has no class for."""

    exit_code = 4


class UndefinedScoreError(DataError):
    """The score of a network is not a finite number."""


class SettingsError(AmscError):
    """A setting is unknown or has an impossible value."""

    exit_code = 2


class UnknownSettingError(SettingsError, TypeError):
    """Settings were given an argument that they do not have, for Python a TypeError as well."""


class TargetError(AmscError):
    """The target cannot be reached, or is not a target."""

    exit_code = 5


class UnknownTargetError(TargetError, TypeError):
    """A target was given an argument that it does not have, for Python a TypeError as well."""


class CutError(AmscError):
    """A cut is not possible: it does not fit the model or would leave a layer empty."""

    exit_code = 6


class VerificationError(CutError):
    """The cut model and the masked model disagree: the cut model is not handed out."""

    exit_code = 6


class UndefinedOutputError(VerificationError):
    """The output of a network, before a cut, is not finite, so that there is nothing to compare."""


class TrainingError(AmscError):
    """Training cannot go on, for example because the loss is no longer finite."""

    exit_code = 7


class NonFiniteLossError(TrainingError):
    """A loss is infinite or no number: what was trained since the last good state is of no use."""


class RunFolderError(AmscError):
    """The run folder exists already, cannot be written, or does not hold what was expected."""

    exit_code = 8


class ParallelError(AmscError):
    """The processes of one job do not hold the same, or cannot share its work."""

    exit_code = 10
