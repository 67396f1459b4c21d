"""Real models of transformers and timm, where they are installed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from amsc.structure import Structure, trace
from amsc.surgery import CutPlan, apply_plan, cut, load, plan_cut, save
from surgery.plans import dims, head, plan_by_hand

HEADS, SIZE = 4, 8
SIZES: dict[str, Any] = {
    "hidden_size": HEADS * SIZE,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "intermediate_size": 44,
}
T5 = {"d_model": 32, "d_kv": SIZE, "d_ff": 44, "num_layers": 2, "num_heads": HEADS}
IDS = {"input_ids": torch.arange(10).view(2, 5) + 3}
PIXELS = {"pixel_values": torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))}


def randomized(model: nn.Module) -> nn.Module:
    """The model with every parameter drawn at random; buffers hold what its positions are made of."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return model


def llama() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(vocab_size=60, num_key_value_heads=2, use_cache=False, **SIZES)
    return randomized(transformers.LlamaModel(config)).eval()


def bert() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(vocab_size=60, max_position_embeddings=16, **SIZES)
    return randomized(transformers.BertModel(config)).eval()


def vit() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    return randomized(transformers.ViTModel(transformers.ViTConfig(image_size=16, patch_size=4, **SIZES))).eval()


NAMES = {
    llama: ("layers.{}.self_attn.{}_proj", "qkv", "layers.{}.self_attn.o_proj"),
    bert: (
        "encoder.layer.{}.attention.self.{}",
        ("query", "key", "value"),
        "encoder.layer.{}.attention.output.dense",
    ),
    vit: ("layers.{}.attention.{}_proj", "qkv", "layers.{}.attention.o_proj"),
}


def without_heads(model: nn.Module, build: Callable[[], nn.Module], inputs: Any, layers: tuple[int, ...]) -> CutPlan:
    """Head 1 and its key and value go; of grouped queries, key/value head 1 and its two query heads."""
    projection, roles, out = NAMES[build]
    tensors = dict(model.named_parameters())
    produced, read = {}, {}
    for layer in layers:
        for role in roles:
            name = projection.format(layer, role)
            num_heads = tensors[f"{name}.weight"].shape[0] // SIZE
            gone = [*head(2, SIZE), *head(3, SIZE)] if build is llama and num_heads == HEADS else head(1, SIZE)
            produced |= {(f"{name}.{key}", 0): gone for key in ("weight", "bias") if f"{name}.{key}" in tensors}
            if role in ("q", "query"):
                read[f"{out.format(layer)}.weight", 1] = gone
    return plan_by_hand(model, inputs, produced, read)


CASES = [(llama, IDS), (bert, IDS), (vit, PIXELS)]


@pytest.mark.parametrize(("build", "inputs"), CASES)
def test_one_layer_without_a_head(build: Callable[[], nn.Module], inputs: Any) -> None:
    model = build()
    small = cut(model, without_heads(model, build, inputs, (0,)), inputs)
    assert small.config.to_dict() == model.config.to_dict(), "the layers differ, the configuration cannot say so"


@pytest.mark.parametrize(("build", "inputs"), CASES)
def test_all_layers_without_a_head_saved_and_loaded(
    build: Callable[[], nn.Module], inputs: Any, tmp_path: Path
) -> None:
    model = build()
    small = cut(model, without_heads(model, build, inputs, (0, 1)), inputs)
    save(small, tmp_path / "amsc")
    again = load(tmp_path / "amsc", build).eval()
    torch.testing.assert_close(again(**inputs)[0], small(**inputs)[0])
    if build is llama:  # its configuration has a head_dim, so it can say what was cut
        assert (small.config.num_attention_heads, small.config.num_key_value_heads) == (2, 1)
        small.save_pretrained(tmp_path / "own")
        own = type(small).from_pretrained(tmp_path / "own").eval()
        torch.testing.assert_close(own(**inputs)[0], small(**inputs)[0])
    else:
        assert small.config.num_attention_heads == HEADS


FEED_FORWARD = {
    llama: (("layers.{}.mlp.gate_proj", "layers.{}.mlp.up_proj"), "layers.{}.mlp.down_proj"),
    bert: (("encoder.layer.{}.intermediate.dense",), "encoder.layer.{}.output.dense"),
    vit: (("layers.{}.mlp.fc1",), "layers.{}.mlp.fc2"),
}


@pytest.mark.parametrize(("build", "inputs"), CASES)
def test_narrower_feed_forward_in_all_layers_saved_and_loaded(
    build: Callable[[], nn.Module], inputs: Any, tmp_path: Path
) -> None:
    model = build()
    tensors = dict(model.named_parameters())
    first, second = FEED_FORWARD[build]
    produced = {
        (f"{name.format(layer)}.{key}", 0): [1, 5 + layer]
        for layer in (0, 1)
        for name in first
        for key in ("weight", "bias")
        if f"{name.format(layer)}.{key}" in tensors
    }
    read = {(f"{second.format(layer)}.weight", 1): [1, 5 + layer] for layer in (0, 1)}
    small = cut(model, plan_by_hand(model, inputs, produced, read), inputs)
    assert small.config.intermediate_size == 42
    assert model.config.intermediate_size == 44
    small.save_pretrained(tmp_path)
    own = type(small).from_pretrained(tmp_path).eval()
    torch.testing.assert_close(own(**inputs)[0], small(**inputs)[0])


def test_fused_projection_of_gpt2() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=HEADS, use_cache=False)
    model = randomized(transformers.GPT2Model(config)).eval()
    at, width = "h.0.attn", HEADS * SIZE
    gone = sorted({*head(1, SIZE), *dims(HEADS, SIZE, [3])})
    rows = [part * width + row for part in range(3) for row in gone]
    produced = {(f"{at}.c_attn.weight", 1): rows, (f"{at}.c_attn.bias", 0): rows}
    small = cut(model, plan_by_hand(model, IDS, produced, {(f"{at}.c_proj.weight", 0): gone}), IDS)
    attention: Any = small.get_submodule(at)
    assert (attention.num_heads, attention.head_dim, attention.split_size) == (3, 7, 21)
    assert attention.scaling == SIZE**-0.5


def timm_model(name: str, **options: Any) -> nn.Module:
    timm = pytest.importorskip("timm")
    return randomized(timm.create_model(name, pretrained=False, num_classes=5, **options)).eval()


def test_timm_vit_and_swin_without_a_head() -> None:
    vit = timm_model("vit_tiny_patch16_224", img_size=32, depth=2)
    swin = timm_model("swin_tiny_patch4_window7_224", img_size=28, depths=(1, 1), num_heads=(3, 6), window_size=7)
    for model, at, size, side in ((vit, "blocks.0.attn", 64, 32), (swin, "layers.0.blocks.0.attn", 32, 28)):
        x = torch.randn(1, 3, side, side)
        rows = [part * 3 * size + row for part in range(3) for row in head(1, size)]
        produced = {(f"{at}.qkv.weight", 0): rows, (f"{at}.qkv.bias", 0): rows}
        if model is swin:
            produced[f"{at}.relative_position_bias_table", 1] = [1]
        plan = plan_by_hand(model, x, produced, {(f"{at}.proj.weight", 1): head(1, size)})
        cut(model, plan, x)
        assert vars(apply_plan(model, plan).get_submodule(at))["num_heads"] == 2


@pytest.mark.parametrize("return_dict", [True, False])
@pytest.mark.parametrize("name", ["GPT2", "Llama", "T5"])
def test_the_cache_in_an_output_pins_nothing(name: str, return_dict: bool) -> None:
    """It is for the model itself: the same can go as without it, and it follows the cut."""
    transformers = pytest.importorskip("transformers")
    options = {"GPT2": {"n_embd": 32, "n_layer": 2, "n_head": HEADS}, "Llama": SIZES, "T5": T5}[name]
    inputs = {**IDS, "return_dict": return_dict} | ({"decoder_input_ids": IDS["input_ids"]} if name == "T5" else {})
    kind = getattr(transformers, "T5ForConditionalGeneration" if name == "T5" else f"{name}Model")

    def structure(use_cache: bool) -> tuple[nn.Module, Structure]:
        config = getattr(transformers, f"{name}Config")(vocab_size=60, use_cache=use_cache, **options)
        model = randomized(kind(config)).eval()
        return model, trace(model, inputs)

    _, without = structure(False)
    with pytest.warns(UserWarning, match="is taken for state that the model hands itself"):
        model, found = structure(True)
    assert found.channels == without.channels
    heads = {group.name: [0] for group in found.channels if group.kind == "head" and group.exact and group.size > 1}
    assert heads
    cut(model, plan_cut(found, channels=heads), inputs)
