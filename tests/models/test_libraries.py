"""Networks of timm and transformers by name, with weights from disk, and what they take."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from amsc.borrowing import run_model
from amsc.cli import main
from amsc.errors import DataError, ModelError
from amsc.models import has_own_weights, is_function, library_of, open_model, usual_inputs
from amsc.tasks import Classification
from libraries import library, module_named

BERT = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def drawn() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    library("transformers")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def saved_bert(folder: Path, *, weights: bool = True) -> nn.Module:
    transformers = library("transformers")
    torch.manual_seed(0)
    model: nn.Module = transformers.BertForSequenceClassification(transformers.BertConfig(**BERT, num_labels=3)).eval()
    if weights:
        model.save_pretrained(folder)  # type: ignore[operator]
    else:
        model.config.architectures = ["BertForSequenceClassification"]  # type: ignore[union-attr]
        model.config.save_pretrained(folder)  # type: ignore[operator, union-attr]
    return model


def test_what_a_name_asks_for() -> None:
    assert [library_of(n) for n in ("timm:x", "hf:a/b", "torchvision:x", "my:build", "resnet20")] == [
        *("timm", "hf", "torchvision"),
        *(None, None),
    ]
    assert [is_function(n) for n in ("timm:x", "hf:a/b", "my:build", "resnet20")] == [False, False, True, False]
    assert [has_own_weights(n) for n in ("timm:x", "timm:x?pretrained", "hf:a/b")] == [False, True, True]


@pytest.mark.parametrize(("name", "package"), [("timm:resnet18", "timm"), ("hf:bert", "transformers")])
def test_a_library_that_is_absent(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelError, match=f"{name} needs the package {package}; install it with pip"):
        open_model(name)


def test_timm_is_asked_for_classes_channels_and_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def create_model(name: str, **options: Any) -> nn.Module:
        asked.update(options, name=name)
        if options["pretrained"] and name == "resnet18":
            raise FileNotFoundError("no connection\nmore words")
        return nn.Linear(2, options.get("num_classes", 1000))

    made = module_named("timm", list_models=lambda: ["resnet18", "vit"], create_model=create_model)
    monkeypatch.setitem(sys.modules, "timm", made)
    assert open_model("timm:resnet18", num_classes=5, in_channels=1).out_features == 5
    assert asked == {"name": "resnet18", "pretrained": False, "num_classes": 5, "in_chans": 1}
    open_model("timm:vit.some_tag?pretrained")
    assert asked == {**asked, "name": "vit.some_tag", "pretrained": True}
    with pytest.raises(ModelError, match="did you mean resnet18"):
        open_model("timm:resnet81")
    with pytest.raises(ModelError, match=r"trained weights: no connection; without a network leave \?pretrained out"):
        open_model("timm:resnet18?pretrained")


def test_a_timm_network_takes_its_own_images() -> None:
    library("timm")
    model = open_model("timm:resnet10t", num_classes=3, in_channels=1)
    inputs = usual_inputs(model, "timm:resnet10t", drawn())
    assert inputs.shape == (1, 1, 176, 176)  # type: ignore[union-attr]
    assert run_model(model.eval(), inputs).shape == (1, 3)


def test_a_folder_of_transformers_is_its_class_with_its_weights(tmp_path: Path) -> None:
    before = saved_bert(tmp_path / "bert")
    model = open_model(f"hf:{tmp_path / 'bert'}", num_classes=7).eval()
    assert type(model) is type(before)
    inputs = usual_inputs(model, "hf:bert", drawn())
    assert isinstance(inputs, dict)
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape == (1, 32)
    assert int(inputs["input_ids"].max()) < 40
    assert torch.equal(model(**inputs).logits, before(**inputs).logits)
    assert model(**inputs).logits.shape == (1, 3), "trained weights keep their classes"


def test_a_folder_with_a_config_alone_takes_the_classes_of_the_data(tmp_path: Path) -> None:
    saved_bert(tmp_path / "bert", weights=False)
    model = open_model(f"hf:{tmp_path / 'bert'}", num_classes=7)
    assert model.classifier.out_features == 7


def test_a_vit_and_a_model_of_two_parts_say_what_they_take() -> None:
    transformers = library("transformers")
    sizes = {key: value for key, value in BERT.items() if key != "vocab_size"}
    vit = transformers.ViTModel(transformers.ViTConfig(**sizes, image_size=[16, 32], patch_size=8, num_channels=1))
    inputs = usual_inputs(vit, "vit", drawn())
    assert isinstance(inputs, dict)
    assert inputs["pixel_values"].shape == (1, 1, 16, 32)
    t5 = transformers.T5ForConditionalGeneration(
        transformers.T5Config(vocab_size=40, d_model=16, d_kv=4, d_ff=24, num_layers=1, num_heads=2)
    )
    inputs = usual_inputs(t5, "t5", drawn())
    assert isinstance(inputs, dict)
    assert {key: tuple(value.shape) for key, value in inputs.items()} == {
        "input_ids": (1, 32),
        "attention_mask": (1, 32),
        "decoder_input_ids": (1, 16),
    }
    assert run_model(t5.eval(), inputs).logits.shape == (1, 16, 40)


@pytest.mark.usefixtures("offline")
def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"hf:nobody/nothing is no folder here, not in the cache .* give a folder"):
        open_model("hf:nobody/nothing")
    (tmp_path / "config.json").write_text('{"format": "amsc-model"}')
    with pytest.raises(ModelError, match=r"holds no model of transformers: .*give the run folder without hf:"):
        open_model(f"hf:{tmp_path}")


def test_what_a_network_takes_must_be_known() -> None:
    with pytest.raises(ModelError, match=r"what my:net takes is not known: give --input-shape"):
        usual_inputs(nn.Linear(2, 3), "my:net", drawn())


def test_inspect_needs_no_shape_for_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved_bert(tmp_path / "bert")
    assert main(["inspect", f"hf:{tmp_path / 'bert'}", "--uniform", "--quiet", "--groups"]) == 0
    text = capsys.readouterr().out
    assert "13.14 K parameters" in text
    assert "bert.encoder.layer.0-1" in text
    assert "no: uniform:" in text, "no configuration of BERT has fewer heads of the same size"


def test_classification_takes_logits_out_of_an_object() -> None:
    logits, labels = torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 0])
    output = module_named("output", logits=logits)
    task = Classification()
    assert task.per_example(output, labels).tolist() == [1.0, 0.0]
    assert torch.equal(task.loss(output, labels), task.loss(logits, labels))
    with pytest.raises(DataError, match="labels must lie between 0 and 1"):
        task.loss(output, labels + 2)
