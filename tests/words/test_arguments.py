"""Typos in what is typed by hand: an error of amsc's that names what was meant, and nothing else changed."""

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from amsc.errors import AmscError, SettingsError, TargetError
from amsc.limits.target import Target
from amsc.settings import RunSettings, Settings


@pytest.mark.parametrize(
    ("typed", "error", "expected"),
    [
        (lambda: Target(mac=0.5), TargetError, "Target has no 'mac'; did you mean macs.; there are macs, "),  # type: ignore[call-arg]
        (lambda: Target(macs=0.5, speed=2), TargetError, "no 'speed'.*; there are .*, drop"),  # type: ignore[call-arg]
        (lambda: Settings(path_point=1), SettingsError, "Settings has no 'path_point'; did you mean path_points"),  # type: ignore[call-arg]
        (lambda: Settings.of("quick", sede=1), SettingsError, "no 'sede'; did you mean seed"),
        (lambda: RunSettings(modle="a"), SettingsError, "RunSettings has no 'modle'; did you mean model"),  # type: ignore[call-arg]
        (lambda: dataclasses.replace(Settings(), sede=1), SettingsError, "did you mean seed"),  # type: ignore[call-arg]
    ],
)
def test_an_unknown_argument_is_answered(typed: Callable[[], Any], error: type[AmscError], expected: str) -> None:
    with pytest.raises(error, match=expected) as caught:
        typed()
    assert isinstance(caught.value, TypeError), "what caught it so far still does"


def test_a_word_that_is_near_nothing_gets_no_hint() -> None:
    with pytest.raises(SettingsError, match="no 'xyzzy'") as caught:
        Settings(xyzzy=1)  # type: ignore[call-arg]
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize("value", [Target(macs=0.5), Settings(seed=3), RunSettings(model="resnet20")])
def test_all_else_is_as_python_makes_it(value: Any) -> None:
    kind = type(value)
    assert list(inspect.signature(kind).parameters) == [field.name for field in dataclasses.fields(kind)]
    assert copy.deepcopy(value) == value == pickle.loads(pickle.dumps(value)) == dataclasses.replace(value)
