"""Networks without shortcuts, for `--model plain_networks:NAME`."""

from amsc.models.vgg import CifarVgg


def vgg16_quarter() -> CifarVgg:
    """VGG-16 at a quarter of its width: 19.7M multiply-adds, nine of its thirteen convolutions keep their shape."""
    return CifarVgg(num_classes=10, in_channels=3, width=16)
