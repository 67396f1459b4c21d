"""The precision "auto": tried where training takes long, recorded, and the same when a run is resumed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from amsc import Settings
from amsc.jobs import fastest
from amsc.jobs.fastest import fastest_speed
from amsc.jobs.run_folder import RunFolder
from amsc.tasks import Classification
from amsc.training import Speed
from small_runs import DATA, SETTINGS, run_small
from training.small import small_net

LONG = Settings(finetune_epochs=1e6)
PLAIN = Speed("float32")


def chosen(seconds: dict[Speed, Any], settings: Settings = LONG) -> Speed:
    """What is taken where the ways have these losses and seconds (an exception: the network fails)."""

    def tried(model: nn.Module, data: Any, task: Any, speed: Speed) -> tuple[float, float]:
        found = seconds[speed]
        if isinstance(found, Exception):
            raise found
        return found

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fastest, "_tried", tried)
        return fastest_speed(small_net(), DATA, Classification(), settings)


def ways(plain: Any, last: Any = (2.0, 1.0), short: Any = (2.0, 1.0), both: Any = (2.0, 1.0)) -> dict[Speed, Any]:
    return {PLAIN: plain, Speed("float32", True): last, Speed("bfloat16"): short, Speed("bfloat16", True): both}


def test_the_fastest_way_is_taken_where_it_is_worth_it() -> None:
    assert chosen(ways((2.0, 1.0), short=(2.01, 0.6), both=(1.99, 0.4))) == Speed("bfloat16", True)
    assert chosen(ways((2.0, 1.0), last=(2.0, 0.5), both=(2.0, 0.6))) == Speed("float32", True)
    assert chosen(ways((2.0, 1.0), both=(2.0, 0.85))) == PLAIN, "a little faster is not worth another result"


def test_a_way_that_fails_or_computes_something_else_is_left_out() -> None:
    assert chosen(ways((2.0, 1.0), short=(2.0, 0.5), both=(3.0, 0.1))) == Speed("bfloat16")
    assert chosen(ways((2.0, 1.0), short=TypeError("no numpy of BFloat16"), both=(float("nan"), 0.1))) == PLAIN


def test_what_is_said_is_done() -> None:
    assert chosen({}, replace(LONG, precision="bfloat16", channels_last=True)) == Speed("bfloat16", True)
    assert chosen({}, replace(LONG, deterministic=True)) == PLAIN
    assert chosen({}, replace(LONG, finetune_epochs=0.0)) == PLAIN
    found = ways((2.0, 9.0), last=(2.0, 1.0), short=(2.0, 0.1), both=(2.0, 0.9))
    assert chosen(found, replace(LONG, channels_last=True)) == Speed("float32", True), "the layout was said"


def test_short_training_is_not_tried() -> None:
    assert chosen({PLAIN: (2.0, 1e-3)}, Settings(finetune_epochs=2)) == PLAIN


def test_a_trial_measures_and_leaves_everything_as_it_was() -> None:
    model, before = small_net(), torch.get_rng_state()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    speed = fastest_speed(model, DATA, Classification(), LONG)
    assert speed in ways(None)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert not model.conv1.weight.grad


def test_a_network_that_takes_no_other_layout_or_precision_trains_as_it_is() -> None:
    class Fussy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small_net()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.net(x)
            assert out.dtype == torch.float32
            assert all(parameter.is_contiguous() for parameter in self.net.parameters())
            return out

    assert fastest_speed(Fussy(), DATA, Classification(), LONG) == PLAIN


def test_a_run_notes_what_was_chosen_and_keeps_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(SETTINGS, precision="auto", path_epochs=1, finetune_epochs=1, dense_epochs=0)
    monkeypatch.setattr("amsc.jobs.opening.fastest_speed", lambda *args: Speed("bfloat16", True))
    record = run_small(tmp_path, settings=settings).record
    assert (record.settings["precision"], record.settings["channels_last"]) == ("bfloat16", True)
    assert RunFolder(tmp_path, {}).read_settings().settings.precision == "auto"
    monkeypatch.setattr("amsc.jobs.opening.fastest_speed", lambda *args: PLAIN)
    assert run_small(tmp_path, settings=settings, resume=True).record == record
