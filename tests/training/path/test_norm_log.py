"""The norms that are kept along a piece are those of the network at that moment."""

import pytest
import torch

from amsc.penalty import Penalty, empty_
from amsc.training.path.look import look_at
from amsc.training.path.norm_log import SAMPLES, NormLog
from training.small import small_data, small_net, traced

DATA = small_data()


def test_norms_are_those_of_the_penalty() -> None:
    net = small_net()
    penalty = Penalty(traced(net, DATA), net)
    log = NormLog(penalty, steps=20)
    log.add(0, 0.5, look_at(penalty, 0.1))
    gone = torch.tensor([name == penalty.blocks[0] for name in penalty.blocks])
    with torch.no_grad():
        empty_(penalty, gone)
    log.add(10, 0.25, look_at(penalty, 0.1))
    trace = log.trace(3.0, per_epoch=5)
    assert trace is not None
    assert trace.epochs == (3.0, 5.0)
    assert trace.strengths == (0.5, 0.25)
    now = dict(zip(penalty.blocks, penalty.block_norms().tolist(), strict=True))
    assert {name: values[-1] for name, values in trace.blocks.items()} == pytest.approx(now, rel=1e-3)
    assert trace.blocks[penalty.blocks[0]][0] > trace.blocks[penalty.blocks[0]][1] == 0
    squares: dict[str, float] = {}
    for (name, _), norm in zip(penalty.channels, penalty.leaf_norms().tolist(), strict=True):
        squares[name] = squares.get(name, 0.0) + norm**2
    found = {name: values[-1] ** 2 for name, values in trace.groups.items()}
    assert found == pytest.approx(squares, rel=2e-3, abs=1e-9)


def test_few_moments_are_kept_and_none_is_none() -> None:
    net = small_net()
    penalty = Penalty(traced(net, DATA), net)
    log = NormLog(penalty, steps=10 * SAMPLES)
    assert log.trace(0.0, per_epoch=10) is None
    look = look_at(penalty, 0.1)
    for step in range(10 * SAMPLES):
        log.add(step, 0.1, look)
    trace = log.trace(0.0, per_epoch=10)
    assert trace is not None
    assert len(trace.epochs) == SAMPLES
