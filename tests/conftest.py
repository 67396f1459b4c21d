"""What every test gets: one thread, a fixed seed, no GPU tests where there is no GPU, and a failure where nothing was
checked."""

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before torch is imported: the tensors of the tests are small, and threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from _pytest.assertion import util
from hypothesis import settings

TESTS = Path(__file__).parent

torch.set_num_threads(1)
settings.register_profile("amsc", deadline=None, derandomize=True)
settings.load_profile("amsc")

# The assertions of helpers count as those of tests do.
pytest.register_assert_rewrite(
    *{path.relative_to(TESTS).with_suffix("").parts[0] for path in TESTS.rglob("*.py") if path.name != "conftest.py"}
)


def forget_what_was_compiled_otherwise() -> None:
    """pytest keeps compiled tests, also those from before `enable_assertion_pass_hook`, which would count nothing."""
    options_changed = (TESTS.parent / "pyproject.toml").stat().st_mtime
    for compiled in TESTS.rglob("*-pytest-*.pyc"):
        if compiled.stat().st_mtime < options_changed:
            compiled.unlink(missing_ok=True)


forget_what_was_compiled_otherwise()


class Checks:
    """Whether a test runs, and how many checks it reached: expected errors, warnings and tensors, and an assertion."""

    running = False
    reached = 0


def counted(check: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(check)
    def wrapper(*args: Any, **options: Any) -> Any:
        Checks.reached += 1
        return check(*args, **options)

    return wrapper


for place, name in ((pytest, "raises"), (pytest, "warns"), (torch.testing, "assert_close")):
    setattr(place, name, counted(getattr(place, name)))


def pytest_assertion_pass() -> None:
    if Checks.running:  # those of fixtures are not the test's
        Checks.reached += 1
        util._assertion_pass = None  # until the next test: pytest would write out every further assertion, slowly


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """A loop over nothing, an `if` that is never true: a test that asserted nothing has not passed."""
    Checks.running, Checks.reached = True, 0
    try:
        yield
    finally:
        Checks.running = False
    if not Checks.reached:
        pytest.fail("this test checked nothing: no assertion in it was reached", pytrace=False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu") is not None:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)
