"""Random generators come back, on every device that is seeded, and on no other one are they touched."""

import pytest
import torch
from torch import nn

from amsc.borrowing import borrowed, devices_of, forked, generator_states, seed_generators
from without_double import MPS, mps, on_mps


@pytest.fixture
def _no_cuda_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(seed: int) -> None:
        raise AssertionError(f"the generators of a device that nothing is on were started with {seed}")

    monkeypatch.setattr(torch.cuda, "manual_seed", refuse)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)


@pytest.mark.usefixtures("_no_cuda_seeds")
def test_what_is_seeded_on_mps_comes_back() -> None:
    model = on_mps(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    with mps() as generator:
        before = generator.get_state(), torch.get_rng_state()
        with borrowed(model):
            seed_generators(7, devices_of(model))
            assert (generator.initial_seed(), torch.initial_seed()) == (7, 7)
        assert torch.equal(generator.get_state(), before[0])
        assert torch.equal(torch.get_rng_state(), before[1])


def _seed_and_fail() -> None:
    with forked([MPS, torch.device("meta"), torch.device("cpu")]):
        seed_generators(7, [MPS])
        raise ZeroDivisionError


def test_generators_come_back_after_an_error() -> None:
    with mps() as generator:
        before = generator.get_state()
        with pytest.raises(ZeroDivisionError):
            _seed_and_fail()
        assert torch.equal(generator.get_state(), before)


def test_only_the_devices_that_are_named_are_seeded() -> None:
    with mps() as generator:
        seed_generators(7)
        assert generator.initial_seed() != 7
        assert torch.initial_seed() == 7


def test_a_draw_shows_in_the_states() -> None:
    with mps() as generator:
        before = generator_states([MPS])
        assert generator_states([MPS]) == before
        torch.rand(1, generator=generator)
        assert generator_states([MPS]) != before


def test_devices_are_those_of_parameters_and_buffers_but_for_the_cpu() -> None:
    buffered = nn.BatchNorm1d(2, affine=False)
    assert devices_of(nn.Sequential(nn.Linear(2, 2), buffered)) == ()
    assert devices_of(nn.Sequential(nn.Linear(2, 2), on_mps(buffered))) == (MPS,)
    assert devices_of(nn.Linear(2, 2, device="meta")) == ()
