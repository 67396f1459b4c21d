"""Settings that are possible each for itself, and not together."""

from typing import TYPE_CHECKING

from amsc.errors import SettingsError

if TYPE_CHECKING:
    from amsc.settings.choices import Settings

__all__ = ["check_together"]


def check_together(settings: "Settings") -> None:
    """Refuse settings that contradict each other.

    Raises:
        SettingsError: some do.
    """
    if settings.with_streams and settings.method == "proximal" and settings.path_epochs:
        said = "inexact" if settings.inexact else "streams"
        raise SettingsError(
            f'{said}: channels of residual streams can go with method="gates" (--method gates), or on a path that '
            "does not train (path_epochs=0); the penalty leaves them, since its groups would overlap"
        )
    if settings.capture and not settings.device.startswith("cuda"):
        raise SettingsError(
            f"capture records training steps as CUDA graphs, and the device is {settings.device}; choose a CUDA device "
            '(device="cuda", --device cuda), or leave capture out'
        )
    if settings.depth_rule != "equal-cost" and settings.method == "proximal" and not settings.path_epochs:
        raise SettingsError(
            f"depth_rule={settings.depth_rule!r} judges what a path that trains has emptied: give path_epochs "
            '(--path-epochs 8), or choose depth_rule="equal-cost"'
        )
    if settings.method == "criterion":
        _check_criterion(settings)
    else:
        _check_no_criterion(settings)


def _check_criterion(settings: "Settings") -> None:
    if not settings.criterion and not settings.regularizer:
        raise SettingsError(
            'method="criterion" takes channels by the prices of a criterion: name one, such as criterion="l1" '
            '(--criterion l1), or a regularizer, which has its own, such as regularizer="growing"'
        )
    if settings.path_epochs and not settings.regularizer:
        raise SettingsError(
            'method="criterion" trains nothing on the path, and '
            f"path_epochs={settings.path_epochs:g}: leave path_epochs out; finetune_epochs train what comes of it; or "
            "name a regularizer to train under"
        )
    if settings.regularizer and not settings.path_epochs:
        raise SettingsError(
            f"regularizer={settings.regularizer!r} is a penalty to train under before the cut: give path_epochs "
            "(--path-epochs 4; in a bench walked, its share of the epochs)"
        )
    if not settings.regularizer and settings.regularization != "auto":
        raise SettingsError(
            f"regularization={settings.regularization:g} is the strength of a regularizer: name one, or leave it out"
        )
    if settings.depth_rule != "equal-cost":
        raise SettingsError(
            f'method="criterion" looks for the number of blocks at equal cost, and depth_rule={settings.depth_rule!r}: '
            "leave depth_rule out; depth_share=0 lets no block go that need not"
        )
    if settings.criterion_spread == "knapsack" and (settings.block_criterion or settings.uniform):
        said = "uniform" if settings.uniform else f"block_criterion={settings.block_criterion!r}"
        raise SettingsError(
            'criterion_spread="knapsack" takes blocks by the prices of their channels, each layer for itself, and '
            f'{said} is given: leave one of the two out, or choose criterion_spread="global"'
        )


def _check_no_criterion(settings: "Settings") -> None:
    given = [name for name in ("criterion", "block_criterion", "regularizer") if getattr(settings, name)]
    given += [name for name in ("criterion_spread", "regularization") if getattr(settings, name) != "auto"]
    if given:
        raise SettingsError(
            f'{given[0]}={getattr(settings, given[0])!r} is for method="criterion" (--method criterion), and '
            f"the method is {settings.method!r}"
        )
