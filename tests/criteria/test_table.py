"""The criteria by name: what is known, what is unknown, and that nobody's model is changed."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from amsc.criteria import BLOCKS, CHANNELS, block_prices, channel_prices
from amsc.data import LoaderData
from amsc.errors import DataError, SettingsError
from amsc.settings import BLOCK_CRITERIA, CRITERIA, Settings
from criteria.small import DATA, net, scene
from without_double import mps, on_mps

EVERY = [*((channel_prices, name) for name in CHANNELS), *((block_prices, name) for name in BLOCKS)]


def test_the_settings_know_the_names_in_the_table() -> None:
    assert tuple(CHANNELS) == CRITERIA
    assert tuple(BLOCKS) == BLOCK_CRITERIA


def state(model: nn.Module) -> dict[str, Any]:
    grads = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    flags = [module.training for module in model.modules()]
    return {"tensors": {n: t.clone() for n, t in model.state_dict().items()}, "grads": grads, "rest": (hooks, flags)}


@pytest.mark.parametrize(("prices", "name"), EVERY)
def test_the_model_comes_back_as_it_was(prices: Any, name: str) -> None:
    model = net().train()
    model.fc.weight.grad = torch.ones_like(model.fc.weight)
    model.first.conv1.requires_grad_(False)
    before, drawn = state(model), torch.get_rng_state()
    found = prices(scene(model, streams=True), name)
    assert found
    after = state(model)
    torch.testing.assert_close(after["tensors"], before["tensors"], rtol=0, atol=0)
    assert before["rest"] == after["rest"]
    assert [name for name, grad in after["grads"].items() if grad is not None] == ["fc.weight"]
    assert not model.first.conv1.weight.requires_grad
    assert torch.equal(torch.get_rng_state(), drawn)


@pytest.mark.parametrize("name", CHANNELS)
def test_every_channel_that_may_go_has_a_price_also_of_streams(name: str) -> None:
    where = scene(streams=True)
    prices = channel_prices(where, name)
    assert {group: tuple(values.shape) for group, values in prices.items()} == {
        "first.conv1": (5,),
        "second.conv1": (3,),
        "stem": (4,),
    }
    assert all(values.dtype == torch.float64 for values in prices.values())
    assert list(channel_prices(scene(), name)) == ["first.conv1", "second.conv1"]


@pytest.mark.parametrize(("prices", "name"), EVERY)
def test_a_device_without_float64_is_asked_for_none(prices: Any, name: str) -> None:
    model, known = net(), scene()
    expected = prices(known, name)
    with mps():
        there = LoaderData(DATA.items, DATA.items, DATA.items, device="mps")
        found = prices(replace(scene(model), model=on_mps(model), data=there), name)
    assert found.keys() == expected.keys()
    for part, price in found.items():
        torch.testing.assert_close(torch.as_tensor(price), torch.as_tensor(expected[part]), rtol=1e-3, atol=1e-6)


def test_unknown_names_are_answered() -> None:
    with pytest.raises(SettingsError, match=r"criterion: expected one of random, l1, .*'hrang'; did you mean hrank\?"):
        channel_prices(scene(), "hrang")
    with pytest.raises(
        SettingsError, match=r"block_criterion: expected one of cka, .*'shortgp'; did you mean shortgpt"
    ):
        block_prices(scene(), "shortgp")
    with pytest.raises(SettingsError, match=r"criterion: expected one of random, l1, .*'tailor'; did you mean taylor"):
        Settings(method="criterion", criterion="tailor")


def test_a_price_that_is_no_number_is_refused() -> None:
    model = net()
    with torch.no_grad():
        model.first.conv1.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(DataError, match=r"the prices that l1 gives first\.conv1 are not finite"):
        channel_prices(scene(model), "l1")


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"criterion": "l1"}, r"criterion='l1' is for method=\"criterion\""),
        ({"block_criterion": "cka", "method": "gates"}, "block_criterion='cka' is for .* the method is 'gates'"),
        ({"criterion_spread": "global"}, "criterion_spread='global' is for"),
        ({"method": "criterion"}, "name one, such as"),
        ({"method": "criterion", "block_criterion": "cka"}, "name one, such as"),
        ({"method": "criterion", "criterion": "l1", "path_epochs": 2.0}, "path_epochs=2: leave path_epochs out"),
        ({"method": "criterion", "criterion": "l1", "depth_rule": "share"}, "leave depth_rule out"),
    ],
)
def test_settings_that_contradict_are_refused(choices: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Settings(**choices)
