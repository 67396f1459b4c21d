"""The map behind each step, against loops over single numbers, autograd, and the arithmetic of published code."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from amsc.errors import SettingsError
from amsc.regularizers import REGULARIZERS, Course, Going, GroupParts, Regularizer, parts_of
from amsc.regularizers.by_scales import polarized, soft_threshold
from amsc.regularizers.by_weights import shrinkage
from amsc.structure import trace
from criteria.small import DATA, Net, net

STEP = 0.1


@dataclass
class Told:
    """Says that the same channels go whenever it is asked, and counts how often that was."""

    going: Going
    asked: int = field(default=0)

    def __call__(self) -> Going:
        self.asked += 1
        return self.going


def groups_of(model: nn.Module, *, streams: bool = False) -> tuple[GroupParts, ...]:
    structure = trace(model, DATA.example_inputs())
    groups = [group for group in structure.channels if group.removable and (streams or group.kind != "stream")]
    return parts_of(model, groups)


def first_two(groups: tuple[GroupParts, ...]) -> Told:
    return Told({group.name: torch.arange(group.size) < 2 for group in groups})


def made(name: str, model: nn.Module, *, steps: int = 100, strength: float | None = None) -> tuple[Regularizer, Told]:
    groups = groups_of(model)
    told = first_two(groups)
    return REGULARIZERS[name].kind(groups, Course(steps, STEP, told), strength), told


def published_polarization(scales: Tensor, t: float) -> Tensor:
    """As in the authors' code, layer by layer, with alpha = 1."""
    mean = scales.sum() / len(scales)
    return t * scales.abs().sum() - (scales - mean).abs().sum()


def test_soft_threshold_minimises_its_objective() -> None:
    candidates = torch.linspace(-2, 2, 40001, dtype=torch.float64)
    for value in (-1.3, -0.2, 0.0, 0.29, 0.31, 1.0):
        best = candidates[((candidates - value) ** 2 / 2 + 0.3 * candidates.abs()).argmin()]
        found = soft_threshold(torch.tensor([value], dtype=torch.float64), 0.3)
        assert float(found) == pytest.approx(float(best), abs=1e-4)


def test_slimming_is_the_published_gradient_away_from_zero_and_exact_at_it() -> None:
    model = net()
    with torch.no_grad():
        model.first.bn1.weight.copy_(torch.tensor([0.7, -0.4, 0.005, -0.005, 0.0]))
    before, others = model.first.bn1.weight.detach().clone(), model.bn.weight.detach().clone()
    made("slimming", model, strength=0.1)[0].apply(0, STEP)
    by_gradient = before - STEP * 0.1 * before.sign()
    after = model.first.bn1.weight.detach()
    torch.testing.assert_close(after[:2], by_gradient[:2])
    assert after[2:].tolist() == [0, 0, 0]
    assert torch.equal(model.bn.weight, others), "the stream's scales may not go"


def test_polarization_goes_along_the_gradient_of_the_published_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    scales = (0.2 + torch.rand(40, generator=generator, dtype=torch.float64)).requires_grad_()
    published_polarization(scales, 1.2).backward()
    step = 1e-4
    moved = polarized(scales.detach(), step, most=10.0)
    torch.testing.assert_close((scales.detach() - moved) / step, scales.grad, rtol=1e-9, atol=1e-9)
    mirrored = polarized(-scales.detach(), step, most=10.0)
    assert torch.equal(mirrored, -moved), "of negative scales the magnitude counts"


def test_polarized_scales_stay_within_their_bounds_and_part() -> None:
    model = net()
    regularizer, _ = made("polarization", model, strength=0.5)
    most = max(float(bn.weight.detach().abs().max()) for bn in (model.first.bn1, model.second.bn1))
    for step in range(200):
        regularizer.apply(step, STEP)
        scales = torch.cat([model.first.bn1.weight, model.second.bn1.weight]).detach()
        assert bool((scales >= 0).all())
        assert float(scales.max()) <= most + 1e-6
    assert int((scales == 0).sum()) > 0


def published_shrinkage(weights: list[Tensor]) -> Tensor:
    """Of one channel after another: `weights` have the channels first. As in Torch-Pruning 1.6.1 (`regularize`)."""
    norms = [
        math.sqrt(sum(float((layer[k] ** 2).sum()) for layer in weights) / len(weights)) for k in range(len(weights[0]))
    ]
    return torch.tensor([16 ** ((max(norms) - norm) / (max(norms) - min(norms))) for norm in norms])


def test_dependency_is_the_published_gradient() -> None:
    model = net()
    makers, readers, scales = model.first.conv1.weight, model.first.conv2.weight, model.first.bn1.weight
    wanted = published_shrinkage([makers.detach(), readers.detach().movedim(1, 0), scales.detach()[:, None]])
    before = [one.detach().clone() for one in (makers, readers, scales, model.first.bn1.bias)]
    step = 1e-5
    made("dependency", model, strength=1.0)[0].apply(0, step)
    shapes = [(-1, 1, 1, 1), (1, -1, 1, 1), (-1,)]
    for old, now, shape in zip(before, (makers, readers, scales), shapes, strict=False):
        # of the implicit step, w' = w - step * gamma * w', exactly
        torch.testing.assert_close(old, now.detach() * (1 + step * wanted.view(shape)), rtol=1e-6, atol=1e-7)
    assert torch.equal(before[3], model.first.bn1.bias), "shifts are left alone"


def test_the_largest_channel_is_shrunk_once_and_the_smallest_sixteen_times() -> None:
    group = groups_of(net())[0]
    found = shrinkage(group)
    assert (float(found.min()), float(found.max())) == pytest.approx((1, 16))
    model = net()
    with torch.no_grad():
        for part in groups_of(model)[0].weights:
            part.parameter.fill_(1)
    assert shrinkage(groups_of(model)[0]).tolist() == [1] * 5, "where all are alike nobody is drawn down"


def test_dependency_agrees_with_torch_pruning_on_the_same_network() -> None:
    tp = pytest.importorskip("torch_pruning")
    model = net()
    stream = [model.fc, model.stem, model.first.conv2, model.second.conv2]  # whose channels do not go here
    importance = tp.importance.GroupMagnitudeImportance(p=2, normalizer="max")
    pruner = tp.pruner.GroupNormPruner(model, DATA.example_inputs(), importance, reg=1.0, ignored_layers=stream)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    pruner.regularize(model)
    theirs = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    before, step = {name: p.detach().clone() for name, p in model.named_parameters()}, 1e-3
    made("dependency", model, strength=1.0)[0].apply(0, step)
    for name, parameter in model.named_parameters():  # an implicit step: the gradient times 1 / (1 + step * gamma)
        rate = (before[name] - parameter.detach()) / step
        torch.testing.assert_close(rate, theirs[name], rtol=0.02, atol=1e-3, msg=name)
    assert float(theirs["first.bn1.weight"].abs().max()) > 1


def test_growing_grows_and_lets_go() -> None:
    model = net()
    regularizer, told = made("growing", model, steps=8, strength=2.0)
    wanted, start = model.first.conv1.weight.detach().clone(), model.first.conv1.weight.detach().clone()
    rest = {name: p.detach().clone() for name, p in model.named_parameters() if "conv1" not in name}
    for step in range(8):
        regularizer.apply(step, STEP)
        for channel in range(5):
            if step < 2 or channel < 2:
                wanted[channel] /= 1 + 2.0 * (step + 1) / 8 * STEP
        torch.testing.assert_close(model.first.conv1.weight.detach(), wanted)
        assert told.asked == (0 if step < 2 else 1)
    assert bool((wanted[0].abs() <= start[0].abs() / 2).all())
    assert all(torch.equal(p, rest[name]) for name, p in model.named_parameters() if name in rest)


def test_growing_remembers_what_it_picked() -> None:
    model = net()
    regularizer, _ = made("growing", model, steps=8, strength=2.0)
    assert regularizer.memory() == {}
    regularizer.apply(2, STEP)
    kept = regularizer.memory()
    again, told = made("growing", net(), steps=8, strength=2.0)
    again.recall(kept)
    again.apply(3, STEP)
    assert told.asked == 0
    assert {name: picked.tolist() for name, picked in again.memory().items()} == {
        "first.conv1": [True, True, False, False, False],
        "second.conv1": [True, True, False],
    }
    again.recall({})
    again.apply(4, STEP)
    assert told.asked == 1


def rest_after(name: str, read: Callable[[Net], Tensor], steps: int = 200) -> Tensor:
    """What is left of the channels of the first block by a strength that was found, if the loss has no say."""
    model = net()
    regularizer, _ = made(name, model, steps=steps)
    before = read(model)
    for step in range(steps):
        regularizer.apply(step, STEP)
    return read(model) / before


def test_the_strength_that_is_found_is_what_each_says() -> None:
    model = net()
    largest = max(float(bn.weight[:2].detach().abs().max()) for bn in (model.first.bn1, model.second.bn1))
    scales = rest_after("slimming", lambda model: model.first.bn1.weight.detach().abs().clone())
    wanted = 1 - 0.25 * largest / model.first.bn1.weight.detach().abs()
    torch.testing.assert_close(scales, wanted, rtol=0, atol=1e-4)
    scales = rest_after("polarization", lambda model: model.first.bn1.weight.detach().abs().clone())
    assert float(scales[:2].min()) < 0.01
    norms = rest_after("growing", lambda model: model.first.conv1.weight.detach().flatten(1).norm(dim=1))
    assert norms[:2].tolist() == pytest.approx([0.001, 0.001], rel=0.2)
    assert float(norms[2:].min()) > 0.5, "let go after a quarter of the steps"
    norms = rest_after("dependency", lambda model: model.first.conv1.weight.detach().flatten(1).norm(dim=1))
    assert float(norms[:2].max()) < 0.76


def test_what_is_frozen_stays_as_it_is() -> None:
    for name in REGULARIZERS:
        model = net().requires_grad_(False)
        before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        made(name, model, strength=1.0)[0].apply(0, STEP)
        assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_channels_without_a_scale_are_named() -> None:
    model = net()
    model.first.bn1 = nn.Identity()
    with pytest.raises(SettingsError, match=r"the channels of first\.conv1 pass none; .*keep=\['first\.conv1'\]"):
        made("slimming", model)
