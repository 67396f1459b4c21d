"""What the best-known pruning library does around a cut, and amsc does not: modes, frozen and tied parameters,
optimisers made before, arguments that leak, batches taken apart, networks that nothing can be learnt of."""

import copy
import inspect
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

import amsc
from amsc.models import open_model
from amsc.penalty import Penalty
from amsc.structure import Structure, trace
from amsc.surgery import CutPlan, apply_plan, cut, cut_tensors, cuttable, load, plan_cut, save
from amsc.training import ProximalStep
from structure.awkward import FAULTS, Net, conv, settled

Prepared = tuple[nn.Module, Tensor, CutPlan]


def residual() -> nn.Module:
    branch = nn.Sequential(conv(8, 6), nn.BatchNorm2d(6), nn.ReLU(), conv(6, 8), nn.BatchNorm2d(8))
    block = Net(lambda self, x: x + self.branch(x), branch=branch)
    parts = {
        "stem": conv(3, 8),
        "bn": nn.BatchNorm2d(8),
        "block": block,
        "drop": nn.Dropout(0.5),
        "fc": nn.Linear(8, 4),
    }
    run = lambda self, x: self.fc(self.drop(self.block(F.relu(self.bn(self.stem(x)))).mean((2, 3))))  # noqa: E731
    return settled(Net(run, **parts))


def halved(structure: Structure) -> CutPlan:
    """The first half of every exact group goes."""
    channels = {g.name: range(g.size // 2) for g in structure.channels if g.exact and g.size > 1}
    return plan_cut(structure, channels=channels)


@pytest.fixture
def prepared() -> Prepared:
    model, inputs = residual(), torch.randn(4, 3, 8, 8)
    return model, inputs, halved(trace(model, inputs))


@pytest.mark.parametrize("training", [True, False])
def test_both_models_are_in_the_mode_the_old_one_was_in(training: bool) -> None:
    model, inputs = residual().train(training), torch.randn(4, 3, 8, 8)
    model.get_submodule("bn").train(not training)
    small = cut(model, halved(cuttable(model, trace(model, inputs), inputs)), inputs)
    for either in (model, small):
        assert {name for name, module in either.named_modules() if module.training != training} == {"bn"}


def test_frozen_parameters_stay_frozen_and_the_others_trainable(prepared: Prepared) -> None:
    model, inputs, plan = prepared
    frozen = {"stem.weight", "bn.bias", "block.branch.3.weight", "fc.bias"}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    for either in (cut(model, plan, inputs), model):
        assert {name for name, p in either.named_parameters() if not p.requires_grad} == frozen


def test_a_network_with_nothing_to_train_is_cut_all_the_same(prepared: Prepared) -> None:
    model, inputs, plan = prepared
    model.requires_grad_(False)
    assert halved(trace(model, inputs)) == plan
    small = cut(model, plan, inputs)
    assert sum(p.numel() for p in small.parameters()) == plan.parameters < sum(p.numel() for p in model.parameters())
    assert not any(p.requires_grad for p in small.parameters())


def test_a_penalty_on_frozen_parameters_is_refused_aloud(prepared: Prepared) -> None:
    model, inputs, _ = prepared
    optimizer = SGD(model.parameters(), lr=0.1)
    model.requires_grad_(False)
    with pytest.raises(amsc.AmscError, match="frozen"):
        ProximalStep(optimizer, Penalty(trace(model, inputs), model))


def test_an_optimiser_made_before_the_cut_trains_the_old_model_and_never_the_new(prepared: Prepared) -> None:
    model, inputs, plan = prepared
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    small = cut(model, plan, inputs)
    before, untouched = copy.deepcopy(model.state_dict()), copy.deepcopy(small.state_dict())
    model.train()(inputs).square().sum().backward()
    optimizer.step()
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters() if p.grad.any())
    assert all(torch.equal(tensor, untouched[name]) for name, tensor in small.state_dict().items())
    ours = {p.untyped_storage().data_ptr() for p in model.parameters()}
    assert not any(p.untyped_storage().data_ptr() in ours for p in small.parameters())
    momentum = {name: optimizer.state[p]["momentum_buffer"] for name, p in model.named_parameters()}
    followed = SGD(small.parameters(), lr=0.1, momentum=0.9)
    for name, tensor in cut_tensors(momentum, plan).items():
        followed.state[small.get_parameter(name)]["momentum_buffer"] = tensor.clone()
    small.train()(inputs).square().sum().backward()
    followed.step()
    assert any(not torch.equal(p, untouched[name]) for name, p in small.named_parameters())


def test_tied_weights_stay_tied() -> None:
    embedding = nn.Embedding(11, 8)
    model = Net(
        lambda self, x: self.head(self.down(F.relu(self.up(self.embedding(x))))),
        embedding=embedding, up=nn.Linear(8, 16), down=nn.Linear(16, 8), head=nn.Linear(8, 11, bias=False),
    )  # fmt: skip
    model.head.weight = embedding.weight
    inputs = torch.randint(0, 11, (2, 5))
    small: Any = cut(model, halved(cuttable(model, trace(model, inputs), inputs)), inputs)
    assert small.head.weight is small.embedding.weight
    assert small.up.weight.shape[0] == 8


def test_one_cut_leaves_nothing_behind_for_the_next(prepared: Prepared) -> None:
    model, inputs, plan = prepared
    other = nn.Sequential(conv(3, 6), nn.ReLU(), conv(6, 2))
    first = halved(trace(other, inputs))
    cut(model, plan, inputs)
    assert halved(trace(other, inputs)) == first
    assert trace(model, inputs) == trace(model, inputs)
    assert not hasattr(model, "amsc_plan")


def public_functions() -> list[Callable[..., Any]]:
    modules = [amsc, *(__import__(f"amsc.{m.name}", fromlist=["x"]) for m in pkgutil.iter_modules(amsc.__path__))]
    named = (getattr(module, name) for module in modules for name in getattr(module, "__all__", ()))
    return [value for value in named if inspect.isfunction(value) or inspect.isclass(value)]


def test_no_default_argument_can_be_changed_by_a_call() -> None:
    for function in public_functions():
        methods = [function, *vars(function).values()] if inspect.isclass(function) else [function]
        for method in filter(inspect.isfunction, methods):
            defaults = [*(method.__defaults__ or ()), *(method.__kwdefaults__ or {}).values()]
            assert not any(isinstance(d, list | dict | set | Tensor) for d in defaults), method.__qualname__


class Batch(nn.Module):
    """Takes one argument that holds two tensors, in the container it is told."""

    def __init__(self, read: Callable[[Any], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.a, self.b, self.head, self.read = conv(3, 6), conv(3, 6), conv(6, 2), read

    def forward(self, batch: Any) -> Tensor:
        left, right = self.read(batch)
        return self.head(F.relu(self.a(left) + self.b(right)))


@pytest.mark.parametrize(
    ("wrap", "read"),
    [
        (lambda a, b: ([a, b],), lambda batch: tuple(batch)),
        (lambda a, b: ((a, b),), lambda batch: batch),
        (lambda a, b: ({"x": a, "y": b},), lambda batch: (batch["x"], batch["y"])),
        (lambda a, b: {"batch": {"x": [a], "y": b}}, lambda batch: (batch["x"][0], batch["y"])),
        (lambda a, b: {"batch": [a, b]}, lambda batch: tuple(batch)),
    ],
)
def test_a_batch_reaches_forward_in_the_container_it_came_in(wrap: Any, read: Any) -> None:
    model, inputs = Batch(read), wrap(torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8))
    structure = trace(model, inputs)
    assert structure.group("a").size == 6
    assert cut(model, halved(structure), inputs)


def test_a_group_of_one_channel_gives_finite_numbers() -> None:
    model, inputs = FAULTS["one channel among others"].build(0)
    model.requires_grad_(True)
    structure = cuttable(model, trace(model, inputs), inputs)
    step = ProximalStep(
        SGD(model.parameters(), lr=0.1), Penalty(structure, model), depth_strength=0.1, width_strength=0.1
    )
    for _ in range(3):
        step.zero_grad()
        model(inputs).square().mean().backward()
        step.step()
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_saving_needs_no_pickle(prepared: Prepared, tmp_path: Path) -> None:
    model, inputs, plan = prepared
    small = cut(model, plan, inputs)
    save(small, tmp_path / "small")
    assert sorted(path.suffix for path in (tmp_path / "small").iterdir()) == [".json", ".safetensors"]
    assert torch.equal(load(tmp_path / "small", residual).eval()(inputs), small.eval()(inputs))


def test_the_resnet_56_of_the_paper_is_cut_in_every_stage() -> None:
    model, inputs = settled(open_model("resnet56")), torch.randn(2, 3, 32, 32)
    plan = halved(trace(model, inputs))
    small = apply_plan(model, plan)
    widths = {name: m.out_channels for name, m in small.named_modules() if isinstance(m, nn.Conv2d)}
    before = {name: m.out_channels for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    assert all(widths[name] <= before[name] / 2 for name in before if name.endswith("conv1"))
    amsc.surgery.verify(model, small, plan, inputs)
