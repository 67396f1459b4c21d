"""A compression inside of a loop that is written by hand, also where the loop does something special."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DataParallel
from torch.optim import SGD, AdamW, RMSprop
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from amsc.errors import AmscError, AmscWarning, ModelError, SettingsError, TargetError, TrainingError
from amsc.measurement import measure
from amsc.surgery import load, plan_of, save
from amsc.trainers import Compression, LoopSettings, cut_as, read_state, write_state
from trainers.loops import DATA, EXAMPLE, SETTINGS, STEPS, TARGET, Batches, Net, by_hand, sgd
from training.small import same_tensors

BATCHES = Batches.drawn()
X = {"x": EXAMPLE}


def macs(net: nn.Module) -> int:
    return measure(net, X).macs


def compression_of(net: nn.Module, **options: Any) -> Compression:
    options = {"optimizer": sgd(net)[0], "target": TARGET, "steps": STEPS, "settings": SETTINGS, **options}
    optimizer = options.pop("optimizer")
    return Compression(net, optimizer, options.pop("inputs", X), **options)


def train(net: Any, compression: Compression, first: int = 0, last: int = STEPS) -> None:
    net.train()
    for x, labels in BATCHES.pairs[first:last]:
        net(x, labels)["loss"].backward()
        compression.optimizer.step()
        compression.optimizer.zero_grad()
        compression.update()


def test_the_network_ends_at_its_target_and_is_saved(tmp_path: Any) -> None:
    net = Net()
    compression = by_hand(net, BATCHES)
    assert 0.48 < macs(net) / macs(Net()) <= 0.5
    assert compression.network is net
    assert compression.is_done
    assert [made.steps for made in compression.cuts] == sorted({made.steps for made in compression.cuts})
    assert compression.cuts[-1].steps <= 0.7 * STEPS
    assert compression.cuts[-1].macs == macs(net)
    save(net, tmp_path / "small")
    again = load(tmp_path / "small", Net)
    net.eval()
    torch.testing.assert_close(again(EXAMPLE), net(EXAMPLE), rtol=0, atol=0)


def test_it_is_driven_to_zero_before_it_is_cut() -> None:
    """Cuts of zeros leave the function as it is; at the end of the path little is left to cut that is not zero."""
    net, seen = Net(), list[float]()
    compression = compression_of(net, settings=LoopSettings(share=1.0, pieces=1, round_to=1, weights="amsc"))
    net.train()
    for x, labels in BATCHES.pairs:
        net(x, labels)["loss"].backward()
        compression.optimizer.step()
        compression.optimizer.zero_grad()
        seen.append(compression.watch()["cost"])
    assert seen[0] == 1.0
    assert seen[-1] < 0.65
    compression.update()
    assert compression.watch()["cost"] <= 0.5


def test_no_generator_is_disturbed() -> None:
    net = Net()
    before = torch.get_rng_state()
    compression = compression_of(net)
    train(net, compression)
    assert len(compression.cuts) >= 2
    assert torch.equal(torch.get_rng_state(), before)


def test_averaged_weights_follow_all_cuts() -> None:
    net = Net()
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    compression = compression_of(net, averages=[average])
    net.train()
    for x, labels in BATCHES.pairs:
        net(x, labels)["loss"].backward()
        compression.optimizer.step()
        compression.optimizer.zero_grad()
        average.update_parameters(net)
        compression.update()
    assert plan_of(average.module) == plan_of(net)
    for own, averaged in zip(net.parameters(), average.parameters(), strict=True):
        torch.testing.assert_close(own, averaged, rtol=0.5, atol=0.05)


@pytest.mark.parametrize("weights", ["fisher", "gl"])
def test_adam_and_depth(weights: str) -> None:
    net = Net()
    optimizer = AdamW(net.parameters(), lr=2e-3, fused=True)
    settings = LoopSettings(share=0.8, pieces=4, depth_share=0.6, weights=weights, round_to=1)
    compression = compression_of(net, optimizer=optimizer, settings=settings)
    train(net, compression)
    assert 0.48 < macs(net) / macs(Net()) <= 0.5
    assert {p for group in optimizer.param_groups for p in group["params"]} == set(net.parameters())
    assert all(state["exp_avg"].shape == p.shape for p, state in optimizer.state.items())


def test_gradient_accumulation_counts_steps_of_the_optimiser() -> None:
    net, batches = Net(), Batches.drawn(2 * STEPS)
    compression = compression_of(net)
    net.train()
    for number, (x, labels) in enumerate(batches.pairs):
        (net(x, labels)["loss"] / 2).backward()
        if number % 2:
            compression.optimizer.step()
            compression.optimizer.zero_grad()
        assert not (compression.update() and number % 2 == 0), "half of a gradient is there: nothing may be cut"
    assert compression.steps == STEPS
    assert compression.is_done


def test_mixed_precision_with_a_gradient_scaler() -> None:
    """Steps that the scaler leaves out are none; a cut is proven in float32, also inside of autocast."""
    net, scaler = Net(), torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-20)
    compression = compression_of(net, steps=STEPS - 10)
    net.train()
    taken = 0
    for x, labels in BATCHES.pairs:
        with torch.autocast("cpu", torch.bfloat16):
            loss = net(x, labels)["loss"]
            scaler.scale(loss).backward()
            before = scaler.get_scale()
            scaler.step(compression.optimizer)
            scaler.update()
            taken += scaler.get_scale() >= before
            compression.optimizer.zero_grad()
            compression.update()
    assert taken == compression.steps
    assert taken < STEPS
    assert compression.is_done
    assert macs(net) <= 0.5 * macs(Net())


def test_a_compiled_network_is_cut_and_compiles_anew() -> None:
    net = Net()
    compiled: Any = torch.compile(net, backend="eager")
    compression = compression_of(compiled, optimizer=sgd(net)[0], steps=20)
    train(compiled, compression, last=20)
    assert compression.network is net
    compiled.eval()
    torch.testing.assert_close(compiled(EXAMPLE), net(EXAMPLE))
    assert compiled(EXAMPLE)["logits"].shape == (1, 10)
    assert macs(net) <= 0.5 * macs(Net())


def test_a_loop_that_calls_update_once_an_epoch_is_cut_then() -> None:
    net = Net()
    compression = compression_of(net)
    net.train()
    for number, (x, labels) in enumerate(BATCHES.pairs):
        net(x, labels)["loss"].backward()
        compression.optimizer.step()
        compression.optimizer.zero_grad()
        if number % 20 == 19:
            compression.update()
    assert {made.steps for made in compression.cuts} <= {20, 40, 60}
    assert compression.is_done


def test_it_goes_on_from_a_checkpoint_after_a_cut() -> None:
    net = Net()
    compression = compression_of(net)
    train(net, compression, last=STEPS // 2)
    assert compression.cuts
    assert not compression.is_done
    stored = copy.deepcopy((net.state_dict(), compression.optimizer.state_dict())), write_state(compression.state)
    (weights, moments), text = stored
    state, again = read_state(text), Net()
    assert state == compression.state
    cut_as(again, state)
    again.load_state_dict(weights)
    optimizer = sgd(again)[0]
    optimizer.load_state_dict(moments)
    resumed = compression_of(again, optimizer=optimizer, resume=state)
    assert resumed.steps == STEPS // 2
    train(again, resumed, first=STEPS // 2)
    assert resumed.is_done
    assert 0.48 < macs(again) / macs(Net()) <= 0.5


def test_a_checkpoint_of_another_compression_is_refused() -> None:
    net = Net()
    train(net, compression := compression_of(net), last=STEPS // 2)
    state = compression.state
    train(net, compression, first=STEPS // 2)
    with pytest.raises(ModelError, match="give the dense network"):
        cut_as(net, state)
    with pytest.raises(TrainingError, match="not the state of a compression"):
        read_state('{"steps": 3}')


def test_a_network_of_another_size_is_not_gone_on_with() -> None:
    net = Net()
    train(net, compression := compression_of(net), last=STEPS // 2)
    with pytest.raises(ModelError, match=r"not as small as it was.*cut_as"):
        compression_of(Net(), resume=compression.state)


def test_minima_and_a_state_hold_when_what_they_name_is_gone() -> None:
    settings = LoopSettings(share=0.7, pieces=2, depth_share=0.9, round_to=1, minimum=("body.layer*=2",))
    net = Net()
    compression = compression_of(net, settings=settings)
    train(net, compression)
    state = read_state(write_state(compression.state))
    assert state == compression.state
    assert compression_of(net, settings=settings, resume=state).is_done
    assert min(m.out_channels for m in net.body.modules() if isinstance(m, nn.Conv2d)) >= 2


def test_training_that_ends_early_is_told_of_and_still_meets_the_target() -> None:
    net = Net()
    compression = compression_of(net)
    train(net, compression, last=10)
    with pytest.warns(AmscWarning, match="ended after 10 steps, and the path to the target takes 42"):
        compression.end()
    assert macs(net) <= 0.5 * macs(Net())


def test_an_optimiser_that_was_made_after_it_is_noticed() -> None:
    net = Net()
    compression = compression_of(net)
    net(EXAMPLE, torch.tensor([1]))["loss"].backward()
    SGD(net.parameters(), lr=0.1).step()
    with pytest.raises(TrainingError, match="another one was made after it"):
        compression.end()


def frozen() -> nn.Module:
    return Net().requires_grad_(False)


REFUSED: list[tuple[dict[str, Any], type[AmscError], str]] = [
    ({"target": "macs=0.1%"}, TargetError, "lowest reachable target is macs="),
    ({"target": "drop=1%"}, TargetError, "validation split"),
    ({"target": 0.5}, TargetError, "must be an amsc.Target"),
    ({"steps": 0}, SettingsError, "how many steps"),
    ({"steps": math.inf}, SettingsError, "needs max_steps"),
    ({"settings": LoopSettings(keep=("*",))}, TargetError, "nothing in this network can be removed"),
    ({"optimizer": RMSprop}, TrainingError, "SGD, Adam or AdamW, got RMSprop"),
    ({"optimizer": None}, TrainingError, "expected a torch.optim.Optimizer, got NoneType"),
    ({"inputs": {"x": torch.zeros(1, 3, 8, 8)}}, AmscError, "."),
]


@pytest.mark.parametrize(("options", "kind", "words"), REFUSED, ids=[str(each[2]) for each in REFUSED])
def test_it_is_refused_before_training(options: dict[str, Any], kind: type[AmscError], words: str) -> None:
    net, (optimizer, _) = Net(), sgd(probe := Net())
    before = copy.deepcopy(net.state_dict())
    if options.get("optimizer") is RMSprop:
        options = {"optimizer": RMSprop(net.parameters())}
    with pytest.raises(kind, match=words):
        compression_of(net, **options)
    assert same_tensors(net.state_dict(), before)
    assert not optimizer._optimizer_step_post_hooks
    assert probe is not net


def test_no_hook_is_left_where_it_is_refused() -> None:
    net = Net()
    optimizer = SGD(net.body.linear.parameters(), lr=0.1)
    with pytest.raises(TrainingError, match="penalised parameters"):
        compression_of(net, optimizer=optimizer)
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_two_learning_rates_for_what_is_penalised_are_refused_before_training() -> None:
    net = Net()
    last = set(net.body.layer3.parameters())
    groups = [{"params": [p for p in net.parameters() if p not in last]}, {"params": list(last), "lr": 0.001}]
    optimizer = SGD(groups, lr=0.02)
    with pytest.raises(TrainingError, match=r"need one step size.*0\.001, 0\.02"):
        compression_of(net, optimizer=optimizer)
    assert not optimizer._optimizer_step_pre_hooks


def test_a_network_without_anything_to_remove_is_refused() -> None:
    net = nn.Linear(8, 4)
    with pytest.raises(TargetError, match="nothing in this network can be removed"):
        Compression(net, SGD(net.parameters(), lr=0.1), torch.randn(2, 8), target="macs=50%", steps=10)


def test_a_network_of_which_all_is_frozen_is_refused() -> None:
    net = frozen()
    with pytest.raises(TargetError, match="nothing in this network can be removed"):
        compression_of(net)


def test_a_network_for_several_devices_is_refused() -> None:
    net = Net()
    with pytest.raises(ModelError, match="wrapped in DataParallel"):
        compression_of(DataParallel(net), optimizer=sgd(net)[0])


@pytest.mark.parametrize(
    "wrong", [{"share": 0.0}, {"pieces": 0}, {"depth_share": 1.0}, {"weights": "best"}, {"round_to": 0}], ids=str
)
def test_impossible_choices_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        LoopSettings(**wrong)


def test_a_loss_that_is_never_finite_prices_nothing() -> None:
    net = Net()
    compression = compression_of(net)
    net(EXAMPLE, torch.tensor([1]))["loss"].backward()
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, math.nan)
    for _ in range(compression.course.measured[0] - 1):
        compression.optimizer.step()
    with pytest.raises(TrainingError, match="no gradient was finite"):
        compression.optimizer.step()


def test_names_of_what_stays_are_those_of_the_settings() -> None:
    net = Net()
    settings = LoopSettings(share=0.7, pieces=3, round_to=1, keep=("body.layer1.*",), depth_share=0.0)
    compression = compression_of(net, settings=settings, target="macs=70%")
    train(net, compression)
    dense = Net().body.layer1.state_dict()
    assert {name: t.shape for name, t in net.body.layer1.state_dict().items()} == {n: t.shape for n, t in dense.items()}
    assert DATA.num_classes == 10
