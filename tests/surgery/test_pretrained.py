"""Cuts that leave alike layers alike, and what the stock library makes of them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import amsc
from amsc.borrowing import run_model
from amsc.data import LoaderData
from amsc.errors import ModelError, RunFolderError, VerificationError
from amsc.jobs.preparation import removable
from amsc.structure import Structure, stacks, whole_layers
from amsc.surgery import save_pretrained
from amsc.surgery.stock import as_stock
from libraries import library

SIZES = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}
TEXT = {**SIZES, "vocab_size": 53, "max_position_embeddings": 40}
DECODER = {**TEXT, "num_key_value_heads": 2, "use_cache": False}
IMAGES = {**SIZES, "image_size": 32, "patch_size": 8, "num_labels": 4}
TOKENS = {"input_ids": torch.arange(14).view(2, 7) + 3, "attention_mask": torch.ones(2, 7, dtype=torch.long)}
PICTURES = {"pixel_values": torch.linspace(-2, 2, 2 * 3 * 32 * 32).view(2, 3, 32, 32).sin()}

# class, its sizes, inputs; the kinds of groups that a configuration can say, and whether it can say fewer layers
FAMILIES: dict[str, tuple[str, dict[str, Any], dict[str, Tensor], set[str], bool]] = {
    "bert": ("BertForSequenceClassification", TEXT, TOKENS, {"hidden"}, False),
    "vit": ("ViTForImageClassification", IMAGES, PICTURES, {"head", "hidden"}, True),
    "llama": ("LlamaForCausalLM", DECODER, TOKENS, {"head", "hidden"}, True),
    "qwen3": ("Qwen3ForCausalLM", {**DECODER, "head_dim": 12}, TOKENS, {"head", "hidden"}, True),
    "gemma2": ("Gemma2ForCausalLM", {**DECODER, "head_dim": 12}, TOKENS, {"head", "hidden"}, True),
    "gpt2": (
        "GPT2LMHeadModel",
        {"vocab_size": 53, "n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 40, "use_cache": False},
        TOKENS,
        {"hidden"},
        True,
    ),
}


def made(name: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """A network with weights large enough that every part of it counts."""
    kind, sizes, inputs, *_ = FAMILIES[name]
    made = getattr(library("transformers"), kind)
    torch.manual_seed(0)
    model: nn.Module = made(made.config_class(**sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            is_vector = parameter.ndim < 2
            parameter.add_(0.2 * torch.randn_like(parameter)) if is_vector else parameter.normal_(
                0, parameter[0].numel() ** -0.5
            )
    return model, inputs


def uniformly(model: nn.Module, inputs: Any) -> Structure:
    return removable(model, inputs, amsc.Settings(uniform=True))


def quarter(structure: Structure) -> dict[str, list[int]]:
    """The first quarter of each group that may go, in each other layer other ones."""
    gone = {}
    for names in stacks(structure):
        for number, name in enumerate(names):
            group = structure.group(name)
            if group.removable:
                count = max(1, group.size // 4)
                gone[name] = [(index + number) % group.size for index in range(count)]
    return gone


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_configuration_can_say_loads_in_the_stock_library(name: str, tmp_path: Path) -> None:
    model, inputs = made(name)
    structure = uniformly(model, inputs)
    kinds, with_depth = FAMILIES[name][3:]
    assert {structure.group(group).kind for names in stacks(structure) for group in names} >= kinds
    assert {group.kind for group in structure.channels if group.removable} == kinds
    layers = [blocks[1].name for blocks in whole_layers(structure)]
    assert bool(layers) == with_depth
    small = amsc.cut(model, amsc.plan_cut(structure, channels=quarter(structure), blocks=layers))
    save_pretrained(small, tmp_path / "small")
    again = type(model).from_pretrained(tmp_path / "small").eval()  # type: ignore[attr-defined]
    assert type(again) is type(model)
    assert not any("amsc" in type(module).__module__ for module in again.modules())
    parts = [sum(parameter.numel() for parameter in each.parameters()) for each in (model, small, again)]
    assert parts[0] > parts[1] == parts[2]
    torch.testing.assert_close(run_model(again, inputs).logits, run_model(small, inputs).logits, rtol=1e-5, atol=1e-5)


def test_a_cut_that_no_configuration_describes_is_named(tmp_path: Path) -> None:
    model, inputs = made("bert")
    structure = amsc.trace(model, inputs)
    uneven = {"bert.encoder.layer.0.intermediate.dense": range(8)}
    with pytest.raises(ModelError, match=r"layer.0.intermediate.dense.bias is 88 here, and would be 96 .* amsc.save"):
        save_pretrained(amsc.cut(model, amsc.plan_cut(structure, channels=uneven)), tmp_path / "small")
    heads = {group.name: [0] for group in structure.channels if group.kind == "head"}
    with pytest.raises(ModelError, match="no configuration of BertForSequenceClassification describes this network"):
        save_pretrained(amsc.cut(model, amsc.plan_cut(structure, channels=heads)), tmp_path / "small")
    assert not any(tmp_path.iterdir())


def test_a_scale_of_the_old_size_of_heads_is_noticed() -> None:
    model, inputs = made("vit")
    structure = amsc.trace(model, inputs)
    sizes = {group.name: [0] for group in structure.channels if group.kind == "head_dim"}
    small = amsc.cut(model, amsc.plan_cut(structure, channels=sizes))
    assert "scaling is 0.288675 here, and would be 0.301511" in as_stock(small).misfit


def test_a_stock_model_that_gives_something_else_is_refused(tmp_path: Path) -> None:
    model, inputs = made("vit")
    model.vit.layers[0].mlp.activation_fn = nn.Tanh()  # type: ignore[union-attr, index]
    with pytest.raises(VerificationError, match=r"gives another output.*logits"):
        save_pretrained(model, tmp_path / "small", inputs)


def test_what_is_no_model_of_transformers_or_has_no_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"expected a model of transformers, got Linear; use amsc.save"):
        save_pretrained(nn.Linear(2, 3), tmp_path / "small")
    model, inputs = made("bert")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="exists already and is not empty"):
        save_pretrained(model, tmp_path, inputs)
    with pytest.raises(ModelError, match="never cut, so that its inputs are not known"):
        save_pretrained(model, tmp_path / "small")


def test_a_run_leaves_a_folder_for_the_stock_library(tmp_path: Path) -> None:
    model, _ = made("vit")
    drawn = torch.Generator().manual_seed(0)
    batches = [(torch.randn(16, 3, 32, 32, generator=drawn), torch.randint(0, 4, (16,), generator=drawn))] * 2
    data = LoaderData(batches, batches, batches, num_classes=4)
    settings = amsc.Settings.of("instant", uniform=True, path_points=1, reconstruction=32, prices="fisher")
    result = amsc.compress(
        model, data.example_inputs(), data, target=amsc.Target(macs=0.6), settings=settings, out=tmp_path / "run"
    )
    again = type(model).from_pretrained(tmp_path / "run" / "pretrained").eval()  # type: ignore[attr-defined]
    images = batches[0][0]
    torch.testing.assert_close(again(images).logits, result.model(images).logits, rtol=1e-4, atol=1e-4)
    left = {len(layer.mlp.fc1.weight) for layer in again.vit.layers}
    assert len(left) == 1
    assert result.record.after.macs <= 0.6 * result.record.before.macs
    assert again.config.num_hidden_layers < 3 or left < {96}
