"""The built-in networks are those that the literature counts."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from amsc.models import ZOO, open_model
from amsc.models.resnet_cifar import BasicBlock, PaddedShortcut

# Multiply-adds for one image and parameters, exact. Papers write 125.49M/0.85M for ResNet-56, 252.89M/1.72M for
# ResNet-110, 313.7M/14.98M for VGG-16 (with the additions of biases), 282.9M/1.04M for DenseNet-40 (without BatchNorm's
# parameters), 4.1G/25.56M for ResNet-50.
KNOWN = {
    "digits_resnet": (2_516_608, 269_434),
    "resnet20": (40_551_040, 269_722),
    "resnet32": (68_862_592, 464_154),
    "resnet44": (97_174_144, 658_586),
    "resnet56": (125_485_696, 853_018),
    "resnet110": (252_887_680, 1_727_962),
    "vgg16": (313_463_808, 14_987_210),
    "densenet40": (282_917_328, 1_059_298),
    "resnet50": (4_089_184_256, 25_557_032),
}


def count_macs(model: nn.Module, images: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images)
    return int(counter.get_total_flops()) // 2


@pytest.mark.parametrize("name", ZOO)
def test_costs_are_known(name: str) -> None:
    entry = ZOO[name]
    with torch.device("meta"):
        model = open_model(name).eval()
        images = torch.empty(1, entry.in_channels, entry.image_size, entry.image_size)
        macs, parameters = count_macs(model, images), sum(p.numel() for p in model.parameters())
    assert (macs, parameters) == KNOWN[name]


@pytest.mark.parametrize("name", ["digits_resnet", "resnet20", "vgg16", "densenet40"])
def test_output_and_start(name: str) -> None:
    entry = ZOO[name]
    model = open_model(name, num_classes=7, in_channels=2)
    logits = model(torch.randn(4, 2, entry.image_size, entry.image_size))
    assert logits.shape == (4, 7)
    # untrained and normalised, the network must neither explode nor be dead
    assert 0.01 < float(logits.detach().std()) < 10
    logits.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_initial_weights_keep_the_gradients_variance() -> None:
    # He et al. 2015, equation 14: deviation sqrt(2 / (output channels * kernel size)); linear layers sqrt(1 / inputs)
    model = open_model("resnet20", num_classes=100)
    weights = dict(model.named_parameters())
    assert float(weights["layer3.0.conv1.weight"].detach().std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
    assert float(weights["linear.weight"].detach().std()) == pytest.approx((1 / 64) ** 0.5, rel=0.05)
    assert not weights["linear.bias"].any()


def test_names_are_akamasters() -> None:
    names = set(open_model("resnet20").state_dict())
    for name in ("conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight", "layer3.2.bn2.bias", "linear.bias"):
        assert name in names
    assert not any("shortcut" in name for name in names)


def test_names_are_torchvisions() -> None:
    shapes = {name: tuple(t.shape) for name, t in open_model("resnet50").state_dict().items()}
    assert shapes["conv1.weight"] == (64, 3, 7, 7)
    assert shapes["layer2.0.downsample.0.weight"] == (512, 256, 1, 1)
    assert shapes["layer4.2.bn3.running_var"] == (2048,)
    assert shapes["fc.weight"] == (1000, 2048)
    assert len(shapes) == 320


def test_shortcut_takes_every_second_pixel_and_pads_on_both_sides() -> None:
    x = torch.rand(2, 16, 8, 8)
    y = BasicBlock(16, 32, 2).shortcut(x)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert not y[:, :8].any()
    assert not y[:, 24:].any()


def test_shortcut_follows_its_attributes() -> None:
    shortcut = PaddedShortcut(2, 8, 8)
    shortcut.before, shortcut.after = 5, 1
    assert shortcut(torch.rand(1, 16, 4, 4)).shape == (1, 22, 2, 2)
    assert repr(shortcut) == "PaddedShortcut(stride=2, before=5, after=1)"


def test_block_with_zero_parameters_is_the_identity() -> None:
    block = BasicBlock(4, 4, 1).eval()
    x = torch.rand(2, 4, 5, 5)
    assert not torch.equal(block(x), x)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()
    assert torch.equal(block(x), x)


def test_strided_block_with_zero_parameters_is_its_shortcut() -> None:
    block = BasicBlock(4, 8, 2).eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()
    x = torch.rand(2, 4, 6, 6)
    assert torch.equal(block(x), block.shortcut(x))
