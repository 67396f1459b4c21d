"""A run that may take channels that no proof covers: it says so everywhere, and proves the rest."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import amsc
from amsc import Settings, Target, compress, scan
from amsc.errors import CutError, SettingsError
from amsc.jobs.scan_look import LossCheck
from amsc.surgery import apply_plan, load
from amsc.tasks import Classification
from amsc.words.record import unproven_words, verified_words
from training.small import small_data

DATA = small_data()
INPUTS = DATA.example_inputs(1)
SETTINGS = Settings.of(
    "instant", dense_epochs=2, inexact=True, path_points=1, reconstruction=64, only=("embed", "up"), depth_share=0.0
)


class Stream(nn.Module):
    """Pixels as one token, a feed-forward part behind a LayerNorm, and classes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.norm = nn.Linear(64, 32), nn.LayerNorm(32)
        self.up, self.down = nn.Linear(32, 16), nn.Linear(16, 32)
        self.last, self.head = nn.LayerNorm(32), nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.embed(images.flatten(1))
        x = x + self.down(self.up(self.norm(x)).relu())
        return self.head(self.last(x))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[amsc.Result, Path]:
    folder = tmp_path_factory.mktemp("inexact")
    return compress(Stream(), INPUTS, DATA, target=Target(macs=0.3), settings=SETTINGS, out=folder), folder


def test_the_stream_goes_and_the_record_says_that_no_proof_covers_it(run: tuple[amsc.Result, Path]) -> None:
    result, folder = run
    record = result.record
    assert list(record.unproven) == ["embed"]
    assert record.after.macs <= 0.3 * record.before.macs
    assert 0 < len(record.removed_channels["embed"]) < 32
    gone = sum(map(len, record.removed_channels.values()))
    assert (record.channels_before, record.path[-1].channels_left) == (32 + 16, 32 + 16 - gone), "streams are counted"
    assert record.removed_channels["up"], "what is proven goes as well"
    assert record.verification_error <= 1e-5
    (words,) = unproven_words(record.unproven)
    assert words.startswith("no proof covers the channels of embed (aten.native_layer_norm.default in norm normalises")
    assert words in str(record)
    report = (folder / "report.html").read_text()
    assert "But no proof covers the channels of embed" in report


def test_where_nothing_is_proven_no_number_says_so(run: tuple[amsc.Result, Path]) -> None:
    record = run[0].record
    assert verified_words(record).startswith("largest difference between the masked and the cut network: ")
    alone = replace(record, removed_channels={"embed": (0,), "up": ()})
    assert verified_words(alone) == "nothing that went could be verified"


def test_its_network_is_loaded_and_resumed_like_any_other(run: tuple[amsc.Result, Path]) -> None:
    result, folder = run
    small = load(folder / "model", Stream)
    x = DATA.example_inputs(4)
    assert torch.equal(small(x), result.model.eval()(x))
    assert small.amsc_plan.unproven == result.record.unproven
    again = compress(Stream(), INPUTS, DATA, target=Target(macs=0.3), settings=SETTINGS, out=folder, resume=True)
    assert again.record == result.record


def test_nothing_goes_from_the_stream_where_it_is_not_asked_for() -> None:
    settings = replace(SETTINGS, inexact=False, streams=True)
    record = compress(Stream(), INPUTS, DATA, target=Target(macs=0.9), settings=settings).record
    assert list(record.removed_channels) == ["up"]
    assert record.unproven == {}


def test_a_scan_says_so_too_and_its_cut_is_refused() -> None:
    model = Stream()
    found = scan(model, INPUTS, DATA, settings=SETTINGS, dimensions="width", shares=(0.3,))
    assert list(found.record.unproven) == ["embed"]
    assert "no proof covers the channels of embed" in str(found)
    plan = amsc.plan_cut(found.structure, **found.removal(macs=0.3))
    with pytest.raises(CutError, match="cuts without one"):
        amsc.cut(model, plan, INPUTS)
    check = LossCheck.of(model, found.structure, DATA, Classification(), can_split=True)
    assert found.record.points[-1].seen_increase == pytest.approx(check.increase(apply_plan(model, plan)))


def test_a_path_that_trains_a_penalty_refuses() -> None:
    with pytest.raises(SettingsError, match="inexact: channels of residual streams can go with method"):
        Settings(inexact=True, path_epochs=1.0)
    assert Settings(inexact=True, path_epochs=1.0, method="gates").with_streams
