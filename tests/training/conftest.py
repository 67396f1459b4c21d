"""The small network of the tests of training, and its structure; a new one for each file."""

import pytest
from torch import nn

from amsc.structure import Structure
from training.small import small_data, traced, trained_net

DATA = small_data()


@pytest.fixture(scope="module")
def dense() -> nn.Module:
    return trained_net(DATA)


@pytest.fixture(scope="module")
def structure(dense: nn.Module) -> Structure:
    return traced(dense, DATA)
