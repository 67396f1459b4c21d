"""The settings that a report lists: those with a part in the run, and those that somebody chose."""

import dataclasses
from typing import Any

import pytest

from amsc.report.choices import NEEDS, settings_that_count
from amsc.settings import Settings, plain_settings


def listed(**choices: Any) -> set[str]:
    return set(settings_that_count(plain_settings(Settings(**choices))))


def test_of_a_usual_run_what_had_no_part_is_left_out() -> None:
    names = listed()
    assert {"seed", "path_points", "finetune_epochs", "finetune_learning_rate", "round_to"} <= names
    left_out = {
        "dense_learning_rate",
        "path_learning_rate",
        "theta_hat",
        "ema",
        "limit",
        "method",
        "criterion",
        "block_criterion",
        "criterion_spread",
        "keep",
        "streams",
        "temperature",
    }
    assert names.isdisjoint(left_out)


@pytest.mark.parametrize(
    ("choices", "name"),
    [
        ({"dense_epochs": 2.0}, "dense_learning_rate"),
        ({"path_epochs": 2.0}, "path_learning_rate"),
        ({"path_epochs": 2.0}, "theta_hat"),
        ({"path_epochs": 2.0}, "method"),
        ({"method": "criterion", "criterion": "l1"}, "method"),
        ({"method": "criterion", "criterion": "l1"}, "criterion"),
        ({"method": "criterion", "criterion": "l1"}, "criterion_spread"),
        ({"method": "criterion", "criterion": "l1", "block_criterion": "cka"}, "block_criterion"),
        ({"distillation": 0.5}, "temperature"),
        ({"path_learning_rate": 0.5}, "path_learning_rate"),
        ({"keep": ("fc",)}, "keep"),
        ({"streams": True}, "streams"),
        ({"ema": 0.99}, "ema"),
        ({"min_channels": 4}, "min_channels"),
    ],
)
def test_what_has_a_part_or_was_chosen_is_listed(choices: dict[str, Any], name: str) -> None:
    assert name in listed(**choices)
    assert name not in listed()


def test_without_training_nothing_of_training_is_listed() -> None:
    names = settings_that_count(plain_settings(Settings.of("instant", precision="float32", distillation=0.9)))
    assert not {"optimizer", "momentum", "weight_decay", "precision", "distillation"} & set(names)


def test_prices_are_of_scans_that_are_followed_by_reconstruction() -> None:
    assert "prices" in listed()
    assert "prices" not in listed(reconstruction=0)
    assert "prices" not in listed(path_epochs=2.0)
    assert "prices" in listed(path_epochs=2.0, method="gates")


def test_every_name_is_a_setting_and_records_of_old_keep_theirs() -> None:
    assert set(NEEDS) <= {field.name for field in dataclasses.fields(Settings)}
    assert settings_that_count({"seed": 1, "alpha": 3}) == {"seed": 1, "alpha": 3}
