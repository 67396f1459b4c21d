"""The callback in real Lightning trainers."""

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("lightning.pytorch", reason="the extra amsc[lightning] is not installed")

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint

from amsc.errors import ModelError, SettingsError, TrainingError
from amsc.measurement import measure
from amsc.surgery import load, plan_of, save
from amsc.trainers import LoopSettings
from amsc.trainers.lightning import AmscCallback
from trainers.lightning_module import Module, quiet, with_lightning
from trainers.loops import EXAMPLE, SETTINGS, TARGET, Batches, Net

BATCHES = Batches.drawn(40)
X = {"x": EXAMPLE}


def callback(**options: Any) -> AmscCallback:
    return AmscCallback(TARGET, **{"network": "net", "example_inputs": X, "settings": SETTINGS, **options})


def is_half(net: nn.Module) -> bool:
    return bool(0.48 < measure(net, X).macs / measure(Net(), X).macs <= 0.5)


def loss(net: nn.Module) -> float:
    net.eval()
    with torch.no_grad():
        return float(sum(net(x, labels)["loss"] for x, labels in BATCHES.pairs[:10]) / 10)


def test_the_module_that_lightning_holds_becomes_small(tmp_path: Path) -> None:
    module = Module()
    net = module.net
    trainer = with_lightning(module, BATCHES, own := callback())
    assert trainer.lightning_module is module
    assert module.net is net
    assert is_half(net)
    assert own.compression is not None
    assert own.compression.is_done
    held = {p for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert held == set(module.parameters())
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.02 * (1 - 40 / 120))
    assert loss(net) < 1.6, "chance is 2.3"
    save(net, tmp_path / "small")
    torch.testing.assert_close(load(tmp_path / "small", Net)(EXAMPLE), net(EXAMPLE), rtol=0, atol=0)


def test_the_whole_module_is_the_network_unless_one_is_named() -> None:
    """Its trainer hangs on it, and is not copied along."""
    module = Module()
    with_lightning(module, BATCHES, AmscCallback(TARGET, settings=SETTINGS))
    assert plan_of(module) is not None
    assert is_half(module.net)
    assert module.trainer is not None


def weight_averaging() -> Any:
    if not hasattr(pl.callbacks, "EMAWeightAveraging"):
        pytest.skip("this Lightning has no EMAWeightAveraging")
    return pl.callbacks.EMAWeightAveraging(decay=0.5)


def test_a_second_training_goes_on_with_the_small_network() -> None:
    module, own = Module(), callback()
    with_lightning(module, BATCHES, own)
    small = measure(module.net, X).macs
    with_lightning(module, BATCHES, own)
    assert measure(module.net, X).macs == small, "the target is a share of the dense network"
    other = Module()
    with_lightning(other, BATCHES, own)
    assert is_half(other.net), "another network begins anew"


def test_a_trial_run_of_a_single_step_meets_the_target() -> None:
    module = Module()
    with_lightning(module, BATCHES, callback(), fast_dev_run=True)
    assert measure(module.net, X).macs <= 0.5 * measure(Net(), X).macs


def test_weight_averaging_follows() -> None:
    module, average = Module(), weight_averaging()
    with_lightning(module, BATCHES, average, callback())
    assert is_half(module.net)
    assert average._average_model is not None
    shapes = {name: tensor.shape for name, tensor in average._average_model.module.net.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in module.net.state_dict().items()}


def test_bfloat16_and_accumulation() -> None:
    module = Module()
    own = callback()
    with_lightning(module, Batches.drawn(80), own, precision="bf16-mixed", accumulate_grad_batches=2)
    assert own.compression is not None
    assert own.compression.steps == 40
    assert is_half(module.net)


@pytest.mark.parametrize("averaged", [False, True])
def test_it_goes_on_from_a_checkpoint_after_a_cut(tmp_path: Path, averaged: bool) -> None:
    def averages() -> list[Any]:
        return [weight_averaging()] if averaged else []

    saving = ModelCheckpoint(tmp_path, every_n_train_steps=20, save_top_k=-1, filename="{step}")
    with_lightning(Module(), BATCHES, *averages(), callback(), saving, enable_checkpointing=True)
    own, module = callback(), Module()
    trainer = with_lightning(module, BATCHES, *averages(), own, ckpt_path=tmp_path / "step=20.ckpt")
    assert own.compression is not None
    assert own.compression.steps == trainer.global_step > 30
    assert is_half(module.net)
    assert [made.steps > 20 for made in own.compression.cuts] == [True] * len(own.compression.cuts)


def test_what_it_sees_is_logged(tmp_path: Path) -> None:
    from lightning.pytorch.loggers import CSVLogger

    logger = CSVLogger(tmp_path)
    with_lightning(Module(), BATCHES, callback(), logger=logger, log_every_n_steps=5)
    text = (Path(logger.log_dir) / "metrics.csv").read_text()
    header, *rows = text.splitlines()
    column = header.split(",").index("amsc/cost")
    costs = [float(row.split(",")[column]) for row in rows]
    assert costs[0] == 1.0
    assert costs[-1] <= 0.5


def test_other_optimisers_are_told_apart_and_two_for_one_network_refused() -> None:
    class Two(Module):
        def __init__(self, shared: bool) -> None:
            super().__init__()
            self.critic = nn.Linear(10, 1)
            self.shared = shared
            self.automatic_optimization = False

        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Any:
            first, second = self.optimizers()  # type: ignore[misc]
            outcome = self.net(*batch)
            self.manual_backward(outcome["loss"] + self.critic(outcome["logits"]).mean())
            first.step()
            second.step()
            first.zero_grad()
            second.zero_grad()

        def configure_optimizers(self) -> Any:
            parts = list(self.net.parameters()), list(self.critic.parameters())
            extra = list(self.net.body.linear.parameters()) if self.shared else []
            return [torch.optim.SGD(parts[0], lr=0.01), torch.optim.SGD(parts[1] + extra, lr=0.01)]

    module = Two(shared=False)
    # two optimisers count two steps for a batch in trainer.global_step; half of the batches are enough
    with_lightning(module, BATCHES, own := callback())
    assert own.compression is not None
    assert own.compression.steps == 40
    assert is_half(module.net)
    with pytest.raises(TrainingError, match="2 of the 2 optimisers train the network"):
        with_lightning(Two(shared=True), BATCHES, callback())


def test_what_cannot_be_compressed_is_refused_before_training() -> None:
    module = Module()
    before = copy.deepcopy(module.state_dict())
    several = pl.Trainer(**quiet(strategy="ddp", devices=2))  # which would start processes when it fits
    with pytest.raises(TrainingError, match=r"strategy is DDPStrategy on 2.*devices=1"):
        callback().setup(several, module, "fit")
    with pytest.raises(ModelError, match="no submodule 'nett'; network= names one of net"):
        with_lightning(module, BATCHES, callback(network="nett"))
    with pytest.raises(SettingsError, match="needs max_steps"):
        with_lightning(module, BATCHES, callback(), max_epochs=-1)
    module.example_input_array = None  # type: ignore[assignment]
    with pytest.raises(SettingsError, match="example_input_array"):
        with_lightning(module, BATCHES, callback(example_inputs=None))
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize("version", ["1.9.5", "3.0.0", "unknown"])
def test_a_version_that_is_not_known_is_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pl, "__version__", version)
    with pytest.raises(SettingsError, match=rf"knows lightning.pytorch from .* and {version} is installed"):
        callback()


def test_the_library_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from amsc.trainers import versions

    monkeypatch.setitem(sys.modules, "lightning", None)
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    monkeypatch.setitem(sys.modules, "pytorch_lightning", None)
    assert versions.base_class("Callback", "lightning.pytorch", "pytorch_lightning") is object
    with pytest.raises(SettingsError, match=r"pip install 'amsc\[lightning\]'"):
        versions.check_known("lightning.pytorch", "pytorch_lightning")


def test_the_other_name_of_lightning_trains_with_it_too() -> None:
    other = pytest.importorskip("pytorch_lightning", reason="pytorch_lightning is not installed")

    class Own(other.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()

        training_step = Module.training_step

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.02)

    module = Own()
    settings = LoopSettings(share=0.7, pieces=2, round_to=1)
    loader: Any = torch.utils.data.DataLoader(list(BATCHES.pairs), batch_size=None)  # type: ignore[arg-type]
    other.Trainer(callbacks=[callback(settings=settings)], **quiet()).fit(module, loader)
    assert is_half(module.net)
