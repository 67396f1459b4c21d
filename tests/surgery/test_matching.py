"""Channels are put into the order in which plain convolutions come closest to the identity; the function stays."""

import copy

import pytest
import torch
from torch import nn

from amsc.structure import trace
from amsc.surgery import apply_plan, match_channels, plan_cut
from dense_nets import images, randomized

WIDTH = 6
X = images()


def network() -> nn.Sequential:
    """Three convolutions of one width with BatchNorm, the last read by a linear layer at four places."""
    layers: list[nn.Module] = []
    for index in range(3):
        convolution = nn.Conv2d(WIDTH if index else 3, WIDTH, 3, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(WIDTH), nn.ReLU()]
    return randomized(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * WIDTH, 5)))


def shuffled_identities() -> nn.Sequential:
    """The plain convolutions hand their channels on in an order of their own, each in another scale."""
    model = network()
    for index, shift in (("3", 2), ("6", 5)):
        kernel = model.get_parameter(f"{index}.weight")
        with torch.no_grad():
            kernel.zero_()
            for k in range(WIDTH):
                kernel[k, (k + shift) % WIDTH, 1, 1] = 0.5 + k
    return model


@pytest.mark.parametrize("make", [network, shuffled_identities])
def test_the_function_stays(make: type[nn.Sequential]) -> None:
    model = make()
    before = copy.deepcopy(model)
    assert sorted(match_channels(model, trace(model, X))) == ["3", "6"]
    torch.testing.assert_close(model(X), before(X))
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))


def test_identities_in_disorder_are_found_and_can_go() -> None:
    model = shuffled_identities()
    structure = trace(model, X)
    assert match_channels(model, structure) == {"3": 1.0, "6": 1.0}
    for name in ("3", "6"):
        taps = model.get_parameter(f"{name}.weight")[:, :, 1, 1]
        assert torch.equal(taps, taps.diagonal().diag())
        with torch.no_grad():  # BatchNorm takes any scale of a filter
            model.get_buffer(f"{int(name) + 1}.running_mean").div_(taps.diagonal())
            model.get_buffer(f"{int(name) + 1}.running_var").div_(taps.diagonal().square())
            taps.div_(taps.diagonal()[:, None])
    small = apply_plan(model, plan_cut(structure, blocks=["3", "6"]))
    torch.testing.assert_close(small(X), model(X), rtol=1e-3, atol=1e-3)


def test_what_is_matched_stays_as_it_is() -> None:
    model = network()
    structure = trace(model, X)
    first = match_channels(model, structure)
    before = copy.deepcopy(model.state_dict())
    assert match_channels(model, structure) == pytest.approx(first)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_without_plain_convolutions_there_is_nothing_to_match() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    before = copy.deepcopy(model.state_dict())
    assert match_channels(model, trace(model, X)) == {}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_where_the_order_matters_it_stays() -> None:
    model = network()
    model[4] = nn.GroupNorm(2, WIDTH)
    nn.init.uniform_(model[4].weight)
    before = copy.deepcopy(model)
    assert "3" not in match_channels(model, trace(model, X))
    torch.testing.assert_close(model(X), before(X))
