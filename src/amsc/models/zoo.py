"""The built-in networks by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from amsc.models.densenet import CifarDenseNet
from amsc.models.resnet_cifar import CifarResNet
from amsc.models.resnet_imagenet import ImageNetResNet
from amsc.models.vgg import CifarVgg

__all__ = ["ZOO", "ZooEntry"]


@dataclass(frozen=True)
class ZooEntry:
    """How to build a network: `build(num_classes, in_channels)`, and what it was designed for."""

    build: Callable[[int, int], nn.Module]
    num_classes: int
    in_channels: int
    image_size: int
    summary: str


def _cifar_resnet(layers: int) -> ZooEntry:
    blocks = (layers - 2) // 6
    return ZooEntry(
        lambda classes, channels: CifarResNet(blocks, num_classes=classes, in_channels=channels),
        num_classes=10,
        in_channels=3,
        image_size=32,
        summary=f"ResNet-{layers} for CIFAR, {3 * blocks} basic blocks of 16, 32, 64 channels",
    )


def _digits_resnet(classes: int, channels: int) -> nn.Module:
    return CifarResNet(3, widths=(16, 32, 64), num_classes=classes, in_channels=channels)


ZOO: Mapping[str, ZooEntry] = {
    "digits_resnet": ZooEntry(_digits_resnet, 10, 1, 8, "ResNet-20 for the 8x8 digits, 9 basic blocks"),
    **{f"resnet{layers}": _cifar_resnet(layers) for layers in (20, 32, 44, 56, 110)},
    "vgg16": ZooEntry(
        lambda classes, channels: CifarVgg(num_classes=classes, in_channels=channels),
        num_classes=10,
        in_channels=3,
        image_size=32,
        summary="VGG-16 with BatchNorm for CIFAR",
    ),
    "densenet40": ZooEntry(
        lambda classes, channels: CifarDenseNet(12, growth=12, num_classes=classes, in_channels=channels),
        num_classes=10,
        in_channels=3,
        image_size=32,
        summary="DenseNet-40 for CIFAR, growth 12, no bottleneck",
    ),
    "resnet50": ZooEntry(
        lambda classes, channels: ImageNetResNet((3, 4, 6, 3), num_classes=classes, in_channels=channels),
        num_classes=1000,
        in_channels=3,
        image_size=224,
        summary="ResNet-50 for ImageNet, 16 bottleneck blocks",
    ),
}
