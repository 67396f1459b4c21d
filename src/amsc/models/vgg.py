"""VGG-16 with BatchNorm for small images, in the variant the compression literature counts."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from amsc.models.initial import initialise

__all__ = ["CifarVgg"]

# Output channels of the convolutions; "pool" halves the image.
_VGG16: tuple[int | str, ...] = (
    *(64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512),
)


class CifarVgg(nn.Module):
    """Thirteen 3x3 convolutions with BatchNorm, mean over the last pixels, and a classifier of two linear layers.

    14.99M parameters and 313.5M multiply-adds at 32x32 with ten classes. Papers write 14.98M and 313.7M for this
    network: they count the addition of convolution biases, which BatchNorm makes redundant and which are left out here.
    """

    def __init__(self, *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.features = _features(in_channels)
        self.classifier = nn.Sequential(
            OrderedDict(
                linear1=nn.Linear(512, 512, bias=False),
                norm1=nn.BatchNorm1d(512),
                relu1=nn.ReLU(inplace=True),
                linear2=nn.Linear(512, num_classes),
            )
        )
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W), H and W at least 16 -> (N, num_classes), unnormalised log-probabilities."""
        logits: Tensor = self.classifier(torch.flatten(self.features(x), 1))
        return logits


def _features(in_channels: int) -> nn.Sequential:
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for index, channels in enumerate(_VGG16):
        if isinstance(channels, str):
            modules[f"pool{index}"] = nn.MaxPool2d(2)
            continue
        modules[f"conv{index}"] = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        modules[f"norm{index}"] = nn.BatchNorm2d(channels)
        modules[f"relu{index}"] = nn.ReLU(inplace=True)
        in_channels = channels
    modules["mean"] = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(modules)
