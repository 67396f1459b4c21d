"""Models that do what a tracer cannot follow: cut right, left with a reason, or refused in words, and in every case
given back as they were."""

import contextlib
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from amsc.errors import AmscError
from amsc.structure import trace
from amsc.surgery import cut, cuttable, plan_cut
from structure.unruly import SCENARIOS

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks")


def marked(field: str) -> list[Any]:
    """The names in `SCENARIOS`, marked where `field` says what amsc still gets wrong (now and then, if "sometimes")."""
    marks = {
        name: [pytest.mark.xfail(strict=not why.startswith("sometimes"), reason=why)]
        if (why := getattr(scenario, field))
        else []
        for name, scenario in SCENARIOS.items()
    }
    return [pytest.param(name, marks=marks[name], id=name) for name in SCENARIOS]


def job(model: Any, inputs: Any) -> int:
    """Trace, try, cut half of everything; the number of groups and blocks that lost something."""
    structure = cuttable(model, trace(model, inputs), inputs)
    assert all(pin.reason for pin in structure.pins)
    channels = {g.name: range(g.size // 2) for g in structure.channels if g.exact and g.size > 1}
    blocks = [block.name for block in structure.blocks]
    if channels or blocks:
        cut(model, plan_cut(structure, channels=channels, blocks=blocks), inputs)
    return len(channels) + len(blocks)


def outcome(model: Any, inputs: Any) -> tuple[int, str]:
    """What `job` says: how many groups and blocks lost something, or why it refused."""
    try:
        return job(model, inputs), ""
    except AmscError as error:
        return 0, str(error)


@pytest.fixture(autouse=True)
def _nothing_stays_behind() -> Any:
    """Whatever a model does to the global switch or compiles, each test starts with gradients and nothing compiled."""
    torch._dynamo.reset()
    yield
    torch.set_grad_enabled(True)


@pytest.mark.parametrize("name", marked("wrong"))
def test_it_is_cut_right_or_left_or_refused_in_words(name: str) -> None:
    scenario = SCENARIOS[name]
    model, inputs = scenario.build()
    removed, refusal = outcome(model, inputs)
    if scenario.ends == "refused":
        assert re.search(scenario.words, refusal), refusal or "not refused"
    assert removed or scenario.ends != "cut", refusal or "nothing was removable"


@pytest.mark.parametrize("name", marked("altered"))
def test_it_is_given_back_as_it_was(name: str) -> None:
    model, inputs = SCENARIOS[name].build()
    model.train()
    for number, module in enumerate(model.modules()):
        module.training = number % 3 != 1
    for parameter in model.parameters():
        if parameter.is_leaf and not has_no_values(parameter):
            parameter.grad = torch.ones_like(parameter)
    before, tensors, batch = state(model), values(model), pytree.tree_map_only(Tensor, torch.clone, inputs)
    with contextlib.suppress(Exception):  # how it ends is the other test's concern
        job(model, inputs)
    after = state(model)
    assert [key for key in before if after[key] != before[key]] == []
    assert [key for key, tensor in values(model).items() if not same(tensor, tensors.get(key))] == []
    assert all(same(a, b) for a, b in zip(pytree.tree_leaves(inputs), pytree.tree_leaves(batch), strict=True))


def state(model: nn.Module) -> dict[str, Any]:
    """What a model must be given back with, its tensors' values apart."""
    modules, everybody = list(model.modules()), nn.modules.module
    return {
        "modes": [module.training for module in modules],
        "modules": [id(module) for module in modules],
        "gradients": [None if p.grad is None else id(p.grad) for p in model.parameters()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "hooks": [list(getattr(module, name)) for module in modules for name in HOOKS],
        "global hooks": len(everybody._global_forward_hooks) + len(everybody._global_forward_pre_hooks),
        "random numbers": torch.get_rng_state().tolist(),
        "gradient recording": torch.is_grad_enabled(),
    }


def values(model: nn.Module) -> dict[str, Tensor]:
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in named if not has_no_values(tensor)}


def has_no_values(tensor: Tensor) -> bool:
    return tensor.device.type == "meta" or isinstance(tensor, nn.parameter.UninitializedTensorMixin)


def same(one: Any, other: Any) -> bool:
    return isinstance(other, Tensor) and one.device == other.device and (one.is_meta or torch.equal(one, other))
