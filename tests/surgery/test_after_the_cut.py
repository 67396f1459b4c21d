"""A cut network is an ordinary one: it compiles, is copied, saved and loaded, and trains, in five families."""

import copy
import io
import shutil
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from amsc.structure import trace
from amsc.surgery import cut, cuttable, load, plan_cut, save
from surgery.families import FAMILIES
from surgery.nets import randomized


@cache
def cut_once(family: str) -> tuple[nn.Module, nn.Module, Any]:
    """The dense network in eval mode, the one with half of everything cut, a batch."""
    torch.manual_seed(0)
    model, inputs = FAMILIES[family]()
    if inputs.is_floating_point() and family != "vision transformer":
        randomized(model)
    model.eval()
    structure = cuttable(model, trace(model, inputs), inputs)
    channels = {g.name: range(g.size // 2) for g in structure.channels if g.exact and g.size > 1}
    return model, cut(model, plan_cut(structure, channels=channels), inputs), inputs


def prepared(family: str) -> tuple[nn.Module, nn.Module, Any]:
    model, small, inputs = cut_once(family)
    return model, copy.deepcopy(small), inputs


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_smaller_and_has_the_dense_networks_classes_and_names(family: str) -> None:
    model, small, inputs = prepared(family)
    assert sum(p.numel() for p in small.parameters()) < 0.8 * sum(p.numel() for p in model.parameters())
    assert [(name, type(m)) for name, m in small.named_modules()] == [(n, type(m)) for n, m in model.named_modules()]
    assert list(small.state_dict()) == list(model.state_dict())
    assert small(inputs).shape == model(inputs).shape


@pytest.mark.parametrize("family", FAMILIES)
def test_it_compiles_as_a_whole(family: str) -> None:
    _, small, inputs = prepared(family)
    torch._dynamo.reset()
    compiled = torch.compile(small, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(inputs), small(inputs))


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="inductor needs a C++ compiler")
@pytest.mark.parametrize("family", FAMILIES)
def test_it_compiles_to_machine_code(family: str) -> None:
    _, small, inputs = prepared(family)
    torch._dynamo.reset()
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(small)(inputs), small(inputs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_exported(family: str) -> None:
    _, small, inputs = prepared(family)
    program = torch.export.export(small, (inputs,))
    torch.testing.assert_close(program.module()(inputs), small(inputs))


@pytest.mark.parametrize("family", FAMILIES)
def test_its_copy_is_equal_and_apart(family: str) -> None:
    _, small, inputs = prepared(family)
    before = small(inputs)
    duplicate = copy.deepcopy(small)
    assert torch.equal(duplicate(inputs), before)
    with torch.no_grad():
        for parameter in duplicate.parameters():
            parameter.zero_()
    assert torch.equal(small(inputs), before)
    assert duplicate.amsc_plan == small.amsc_plan


@pytest.mark.parametrize("family", FAMILIES)
def test_its_state_goes_round(family: str) -> None:
    _, small, inputs = prepared(family)
    file = io.BytesIO()
    torch.save(small.state_dict(), file)
    file.seek(0)
    again = randomized(copy.deepcopy(small), seed=3)
    assert not torch.equal(again(inputs), small(inputs))
    again.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(again(inputs), small(inputs))


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_loaded_from_the_dense_constructor(family: str, tmp_path: Any) -> None:
    _, small, inputs = prepared(family)
    save(small, tmp_path / "small")
    again = load(tmp_path / "small", lambda: FAMILIES[family]()[0])
    assert torch.equal(again.eval()(inputs), small(inputs))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_it_takes_a_training_step(family: str, kind: Any) -> None:
    _, small, inputs = prepared(family)
    small.load_state_dict(tamed(small.state_dict()))
    optimizer = kind(small.parameters(), lr=1e-3)
    before = [parameter.detach().clone() for parameter in small.parameters()]
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        loss = small.train()(inputs).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[1] < losses[0]
    assert all(p.grad is not None and p.grad.shape == p.shape and p.is_contiguous() for p in small.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, small.parameters(), strict=True))


def tamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights small enough for one step of gradient descent to go down."""
    return {name: tensor * 0.3 if name.endswith("weight") else tensor for name, tensor in state.items()}


def test_the_decoders_head_is_still_its_embedding() -> None:
    _, small, _ = prepared("decoder")
    assert small.get_parameter("head.weight") is small.get_parameter("words.weight")
    small.train()(torch.randint(0, 23, (2, 12))).sum().backward()
    torch.optim.SGD(small.parameters(), lr=0.1).step()
    assert small.get_parameter("head.weight") is small.get_parameter("words.weight")


def test_cutting_a_cut_network_again_gives_an_ordinary_one_too() -> None:
    _, small, inputs = prepared("ResNet")
    structure = trace(small, inputs)
    again = cut(small, plan_cut(structure, channels={g.name: [0] for g in structure.channels if g.size > 1}), inputs)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(again, backend="eager", fullgraph=True)(inputs), again(inputs))
