"""Lightning, the Trainer of transformers and a loop that is written by hand do the same."""

from pathlib import Path

import pytest
import torch
from torch import nn

from amsc.surgery import plan_of
from trainers.loops import DENSE, EXAMPLE, SETTINGS, TARGET, Batches, Net, by_hand, with_trainer

pytest.importorskip("lightning.pytorch", reason="the extra amsc[lightning] is not installed")
pytest.importorskip("transformers", reason="the extra amsc[transformers] is not installed")

from amsc.measurement import measure
from amsc.trainers import lightning, transformers
from trainers.lightning_module import Module, with_lightning


def same_networks(first: nn.Module, second: nn.Module) -> None:
    assert plan_of(first) is not None
    assert plan_of(first) == plan_of(second)
    state, other = first.state_dict(), second.state_dict()
    assert state.keys() == other.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(tensor, other[name], rtol=0, atol=0)


def test_three_loops_keep_the_same_structure_and_weights(tmp_path: Path) -> None:
    batches = Batches.drawn()
    own = by_hand(Net(), batches)
    net, module = Net(), Module()
    callback = transformers.AmscCallback(TARGET, {"x": EXAMPLE}, settings=SETTINGS)
    with_trainer(net, batches, tmp_path, callback)
    with_lightning(module, batches, lightning.AmscCallback(TARGET, {"x": EXAMPLE}, network="net", settings=SETTINGS))
    same_networks(own.network, net)
    same_networks(own.network, module.net)
    share = measure(net, {"x": EXAMPLE}).macs / measure(DENSE, EXAMPLE).macs
    assert 0.48 < share <= 0.5
    assert len(own.cuts) >= 2
