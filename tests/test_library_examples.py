"""The examples with networks of other libraries: what comes out is a network of that library again."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from amsc.borrowing import run_model
from libraries import library
from test_examples import example


@pytest.fixture
def ultralytics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("YOLO_OFFLINE", "true")
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path / "settings"))
    monkeypatch.chdir(tmp_path)
    return library("ultralytics")


@pytest.mark.slow
def test_a_small_yolo_is_a_yolo(ultralytics: Any, tmp_path: Path) -> None:
    yolo, folder = example("yolo"), tmp_path / "data"
    outcome = yolo.main(examples=48, dense_epochs=2, epochs=1, folder=folder)
    before, after = outcome.result.record.before, outcome.result.record.after
    assert 0.57 * before.macs < after.macs <= 0.6 * before.macs
    assert set(outcome.figures) == {"dense", "dense, trained on", "small"}
    picture = str(folder / "images" / "test" / "0.png")
    found = outcome.yolo.predict(picture, conf=0.001, **yolo.QUIET)[0].boxes.data
    assert found.shape[1] == 6
    outcome.yolo.save(folder / "small.pt")
    again = ultralytics.YOLO(str(folder / "small.pt"))
    assert sum(p.numel() for p in again.model.parameters()) <= after.parameters < before.parameters, "some are fused"
    for options in ({"format": "torchscript"}, {"format": "onnx", "simplify": False}):
        file = again.export(imgsz=yolo.SIZE, **options)
        exported = ultralytics.YOLO(str(file), task="detect")
        boxes = exported.predict(picture, conf=0.001, **yolo.QUIET)[0].boxes.data
        assert len(boxes) == pytest.approx(len(found), abs=3), "stored in half precision"


@pytest.mark.slow
def test_a_detr_loses_heads_and_hidden_units() -> None:
    library("transformers")
    outcome = example("detr").main(examples=64, dense_epochs=2, epochs=1)
    record = outcome.result.record
    assert 0.55 * record.before.macs < record.after.macs <= 0.6 * record.before.macs
    output = outcome.result.model(torch.randn(2, 3, 48, 48))
    assert output.logits.shape == (2, 8, 3)
    assert output.pred_boxes.shape == (2, 8, 4)


@pytest.mark.slow
def test_a_unet_keeps_to_its_share() -> None:
    outcome = example("unet").main(examples=64, dense_epochs=2, epochs=1)
    record = outcome.result.record
    assert 0.55 * record.before.macs < record.after.macs <= 0.6 * record.before.macs
    assert outcome.result.model(torch.randn(2, 1, 64, 64)).shape == (2, 3, 64, 64)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert", "vit", "llama"])
def test_a_transformer_goes_back_into_the_stock_library(name: str, tmp_path: Path) -> None:
    library("transformers")
    outcome = example("from_pretrained").main(name, examples=128, epochs=1, folder=tmp_path)
    record, loaded = outcome.result.record, outcome.loaded
    assert record.after.macs <= 0.6 * record.before.macs
    assert type(loaded).__module__.startswith("transformers.")
    inputs = (
        {"pixel_values": torch.randn(2, 3, 24, 24)}
        if name == "vit"
        else {"input_ids": torch.arange(24).view(2, 12) % 13}
    )
    assert isinstance(loaded, nn.Module)
    torch.testing.assert_close(
        run_model(loaded.eval(), inputs).logits, run_model(outcome.result.model, inputs).logits, rtol=1e-4, atol=1e-4
    )
