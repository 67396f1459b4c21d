"""VGG-16 with BatchNorm for small images, in the variant the compression literature counts."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from amsc.models.initial import initialise

__all__ = ["CifarVgg"]

# Output channels of the convolutions, in those of the first; "pool" halves the image.
_VGG16: tuple[int | str, ...] = (1, 1, "pool", 2, 2, "pool", 4, 4, 4, "pool", 8, 8, 8, "pool", 8, 8, 8)


class CifarVgg(nn.Module):
    """Thirteen 3x3 convolutions with BatchNorm, mean over the last pixels, and a classifier of two linear layers.

    14.99M parameters and 313.5M multiply-adds at 32x32 with ten classes. Papers write 14.98M and 313.7M for this
    network: they count the addition of convolution biases, which BatchNorm makes redundant and which are left out here.
    `width` is the number of filters of the first convolution; all others are 1, 2, 4 or 8 times as wide.
    """

    def __init__(self, *, num_classes: int, in_channels: int, width: int = 64) -> None:
        super().__init__()
        self.features = _features(in_channels, width)
        self.classifier = nn.Sequential(
            OrderedDict(
                linear1=nn.Linear(8 * width, 8 * width, bias=False),
                norm1=nn.BatchNorm1d(8 * width),
                relu1=nn.ReLU(inplace=True),
                linear2=nn.Linear(8 * width, num_classes),
            )
        )
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W), H and W at least 16 -> (N, num_classes), unnormalised log-probabilities."""
        logits: Tensor = self.classifier(torch.flatten(self.features(x), 1))
        return logits


def _features(in_channels: int, width: int) -> nn.Sequential:
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for index, factor in enumerate(_VGG16):
        if isinstance(factor, str):
            modules[f"pool{index}"] = nn.MaxPool2d(2)
            continue
        channels = factor * width
        modules[f"conv{index}"] = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        modules[f"norm{index}"] = nn.BatchNorm2d(channels)
        modules[f"relu{index}"] = nn.ReLU(inplace=True)
        in_channels = channels
    modules["mean"] = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(modules)
