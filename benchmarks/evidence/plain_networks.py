"""Networks without shortcuts, for `--model plain_networks:NAME`."""

from collections import OrderedDict

from torch import nn

from amsc.models.vgg import CifarVgg


def vgg16_quarter() -> CifarVgg:
    """VGG-16 at a quarter of its width: 19.7M multiply-adds, nine of its thirteen convolutions keep their shape."""
    return CifarVgg(num_classes=10, in_channels=3, width=16)


def digits_plain() -> nn.Sequential:
    """Eight convolutions of 16 filters for the digits, far more than they need; the last seven keep their shape."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index in range(8):
        layers[f"conv{index}"] = nn.Conv2d(16 if index else 1, 16, 3, padding=1, bias=False)
        layers[f"norm{index}"], layers[f"relu{index}"] = nn.BatchNorm2d(16), nn.ReLU(inplace=True)
    layers |= {"mean": nn.AdaptiveAvgPool2d(2), "flat": nn.Flatten(), "head": nn.Linear(64, 10)}
    return nn.Sequential(layers)
