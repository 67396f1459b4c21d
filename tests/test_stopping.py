"""Signals: at once where nothing would be lost, else where the work has put away what there is."""

import os
import signal
from collections.abc import Callable

import pytest

from amsc.stopping import Terminated, putting_off, stoppable


def _send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)])
def test_they_wait_until_the_work_lets_them(number: int, kind: type[BaseException]) -> None:
    done: list[bool] = []

    def work() -> None:
        with stoppable(), putting_off() as wish:
            done.append(wish.is_heard)
            _send(number)
            done.append(wish.is_heard)

    with pytest.raises(kind) as caught:
        work()
    assert done == [False, True]
    assert caught.type is kind


def test_a_second_one_and_one_outside_come_at_once() -> None:
    done: list[str] = []

    def outside() -> None:
        with stoppable():
            _send(signal.SIGTERM)
            done.append("never")

    def twice() -> None:
        with stoppable(), putting_off():
            _send(signal.SIGINT)
            done.append("noted")
            _send(signal.SIGTERM)
            done.append("never")

    for work in (outside, twice):
        with pytest.raises(Terminated):
            work()
    assert done == ["noted"]


def test_handlers_of_others_are_left_alone_and_ours_given_back() -> None:
    heard: list[int] = []

    def others(number: int, frame: object) -> None:
        heard.append(number)

    usual: Callable[..., object] | int | None = signal.signal(signal.SIGTERM, others)
    try:
        before = signal.getsignal(signal.SIGINT)
        with stoppable(), putting_off() as wish:
            _send(signal.SIGTERM)
            assert not wish.is_heard
        assert (heard, signal.getsignal(signal.SIGINT)) == ([signal.SIGTERM], before)
    finally:
        signal.signal(signal.SIGTERM, usual)


def test_an_error_inside_is_said_before_the_wish() -> None:
    """A disk that is full when the state is put away is what the user has to know."""

    def work() -> None:
        with stoppable(), putting_off():
            _send(signal.SIGTERM)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()


def test_what_comes_of_an_import_that_swallowed_it_is_taken_for_it() -> None:
    def work() -> None:
        with stoppable():
            try:
                _send(signal.SIGINT)
            except KeyboardInterrupt:  # as the machinery of imports does
                raise AttributeError("module has no attribute") from None

    with pytest.raises(KeyboardInterrupt) as caught:
        work()
    assert isinstance(caught.value.__cause__, AttributeError)
