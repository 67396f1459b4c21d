"""DenseNet for small images, without bottleneck and without compression (Huang et al. 2017, table 2)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from amsc.models.initial import initialise

__all__ = ["CifarDenseNet", "DenseLayer", "Transition"]


class DenseLayer(nn.Module):
    """The input with `growth` more channels: cat(x, conv3x3(relu(bn(x))))."""

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, in_channels + growth, H, W)."""
        return torch.cat((x, self.conv1(functional.relu(self.bn1(x)))), 1)


class Transition(nn.Module):
    """Between two stages: BatchNorm, 1x1 convolution with as many channels, mean over 2x2 pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> (N, channels, H/2, W/2)."""
        return functional.avg_pool2d(self.conv1(functional.relu(self.bn1(x))), 2)


class CifarDenseNet(nn.Module):
    """Three stages of `layers_per_stage` dense layers; (12, growth 12) is DenseNet-40."""

    def __init__(self, layers_per_stage: int, *, growth: int, num_classes: int, in_channels: int) -> None:
        super().__init__()
        ends = [2 * growth + stage * layers_per_stage * growth for stage in range(4)]
        self.conv1 = nn.Conv2d(in_channels, ends[0], 3, padding=1, bias=False)
        self.dense1 = _stage(ends[0], layers_per_stage, growth)
        self.trans1 = Transition(ends[1])
        self.dense2 = _stage(ends[1], layers_per_stage, growth)
        self.trans2 = Transition(ends[2])
        self.dense3 = _stage(ends[2], layers_per_stage, growth)
        self.bn = nn.BatchNorm2d(ends[3])
        self.fc = nn.Linear(ends[3], num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, num_classes), unnormalised log-probabilities."""
        x = self.trans1(self.dense1(self.conv1(x)))
        x = self.dense3(self.trans2(self.dense2(x)))
        x = functional.adaptive_avg_pool2d(functional.relu(self.bn(x)), 1)
        logits: Tensor = self.fc(torch.flatten(x, 1))
        return logits


def _stage(in_channels: int, layers: int, growth: int) -> nn.Sequential:
    return nn.Sequential(*(DenseLayer(in_channels + i * growth, growth) for i in range(layers)))
