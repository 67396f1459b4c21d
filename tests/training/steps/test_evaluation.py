"""Scores per example and BatchNorm statistics, with the model left as it was."""

import pytest
import torch
from torch import nn

from amsc.errors import DataError, InputError
from amsc.training import evaluate, mean_loss, reestimate_batchnorm
from training.small import TASK, ListData, same_tensors, small_data, small_net


def _data(*sizes: int) -> ListData:
    return ListData(tuple((3 + 2 * torch.randn(n, 5), torch.randint(2, (n,))) for n in sizes))


def _net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 2))


def test_scores_are_those_of_every_example_in_order() -> None:
    net, data = _net(), _data(6, 3)
    found = evaluate(net, data, "test", TASK)
    net.eval()
    expected = torch.cat([(net(x).argmax(1) == y).float() for x, y in data.items])
    assert torch.equal(found.per_example, expected)
    assert found.score == pytest.approx(float(expected.mean()))


def test_judging_leaves_modes_statistics_and_gradients_alone() -> None:
    net = small_net().train()
    net.bn1.eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    evaluate(net, small_data(), "validation", TASK)
    mean_loss(net, small_data(), TASK)
    assert same_tensors(before, net.state_dict())
    assert net.training
    assert not net.bn1.training
    assert all(parameter.grad is None for parameter in net.parameters())


def test_an_empty_split_is_an_error() -> None:
    with pytest.raises(DataError, match="test split of list is empty"):
        evaluate(_net(), ListData(()), "test", TASK)


def test_statistics_become_the_plain_average_over_the_batches() -> None:
    net, data = _net(), _data(8, 8, 8)
    net[1].running_mean.fill_(50.0)
    reestimate_batchnorm(net, data)
    hidden = [net[0](inputs).detach() for inputs, _ in data.items]
    assert torch.allclose(net[1].running_mean, torch.stack([h.mean(0) for h in hidden]).mean(0), atol=1e-6)
    assert torch.allclose(net[1].running_var, torch.stack([h.var(0) for h in hidden]).mean(0), atol=1e-5)


def test_reestimation_leaves_modes_momentum_weights_and_random_numbers_alone() -> None:
    net, data = _net(), _data(8, 8)
    net.train()
    net[3].eval()
    net[1].momentum = 0.3
    net[1].num_batches_tracked.fill_(11)
    weights = {name: p.detach().clone() for name, p in net.named_parameters()}
    state = torch.get_rng_state()
    reestimate_batchnorm(net, data)
    assert torch.equal(torch.get_rng_state(), state), "dropout has drawn numbers"
    assert (net.training, net[1].training, net[3].training) == (True, True, False)
    assert (net[1].momentum, int(net[1].num_batches_tracked)) == (0.3, 11)
    assert same_tensors(weights, dict(net.named_parameters()))


def test_modes_come_back_after_a_failure() -> None:
    net = _net().train()
    with pytest.raises(InputError, match=r"a batch of shape \(4, 3\)"):
        reestimate_batchnorm(net, ListData(((torch.randn(4, 3), torch.zeros(4)),)))
    assert all(module.training for module in net.modules())
    assert net[1].momentum == 0.1


def test_without_batchnorm_nothing_runs() -> None:
    net, ran = nn.Linear(5, 2), []
    net.register_forward_hook(lambda *_: ran.append(True))
    reestimate_batchnorm(net, ListData(((torch.randn(4, 3), torch.zeros(4)),)))  # of three features, not of five
    assert not ran
