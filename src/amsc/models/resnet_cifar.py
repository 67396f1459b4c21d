"""ResNets for small images: three stages of basic blocks, parameter-free shortcuts (He et al. 2016, section 4.2)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from amsc.models.initial import initialise

__all__ = ["BasicBlock", "CifarResNet", "PaddedShortcut"]


class PaddedShortcut(nn.Module):
    """Every `stride`-th pixel, with `before` and `after` channels of zeros around the input's.

    (N, C, H, W) -> (N, before + C + after, ceil(H/stride), ceil(W/stride)). The three numbers are plain
    attributes, read at every call: whoever cuts channels of the wider stream lowers `before` and `after`.
    """

    def __init__(self, stride: int, before: int, after: int) -> None:
        super().__init__()
        self.stride, self.before, self.after = stride, before, after

    def forward(self, x: Tensor) -> Tensor:
        """The padded, thinned-out input."""
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))

    def extra_repr(self) -> str:
        """The three numbers, for printing."""
        return f"stride={self.stride}, before={self.before}, after={self.after}"


class BasicBlock(nn.Module):
    """relu(shortcut(x) + bn2(conv2(relu(bn1(conv1(x)))))), convolutions 3x3; x is never negative in the network."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        added = channels - in_channels
        same_shape = stride == 1 and added == 0
        self.shortcut = nn.Identity() if same_shape else PaddedShortcut(stride, added // 2, added - added // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, channels, H/stride, W/stride)."""
        branch = functional.relu(self.bn1(self.conv1(x)))
        branch = self.bn2(self.conv2(branch))
        return functional.relu(branch + self.shortcut(x))


class CifarResNet(nn.Module):
    """A ResNet of 6 * blocks_per_stage + 2 layers: 3x3 stem, three stages, mean over all pixels, linear layer.

    Tensor names are those of akamaster/pytorch_resnet_cifar10, whose trained weights load as they are.
    """

    def __init__(
        self, blocks_per_stage: int, *, widths: tuple[int, int, int] = (16, 32, 64), num_classes: int, in_channels: int
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1 = _stage(widths[0], widths[0], blocks_per_stage, stride=1)
        self.layer2 = _stage(widths[0], widths[1], blocks_per_stage, stride=2)
        self.layer3 = _stage(widths[1], widths[2], blocks_per_stage, stride=2)
        self.linear = nn.Linear(widths[2], num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, num_classes), unnormalised log-probabilities."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1)
        logits: Tensor = self.linear(x)
        return logits


def _stage(in_channels: int, channels: int, blocks: int, *, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))
