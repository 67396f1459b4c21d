"""A test that checks nothing fails: each of these must, or its strict `xfail` does."""

import pytest
import torch

pytestmark = pytest.mark.xfail(strict=True, raises=pytest.fail.Exception, reason="checks nothing")


@pytest.fixture
def checked_fixture() -> None:
    assert torch.get_num_threads() == 1


def test_a_loop_over_nothing_fails() -> None:
    for number in ():
        assert number


def test_the_assertions_of_a_fixture_are_not_those_of_the_test(checked_fixture: None) -> None:
    pass


def test_the_checks_of_the_test_before_are_not_those_of_this_one() -> None:
    pass
