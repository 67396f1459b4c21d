"""Initial weights of the built-in networks."""

from torch import nn

__all__ = ["initialise"]


def initialise(model: nn.Module) -> None:
    """Set convolutions and linear layers to He et al.'s normal initialisation, biases to zero; in place.

    Convolutions keep the variance of the gradient (fan out), linear layers that of the input (fan in);
    normalisations keep torch's own start, scale one and shift zero.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
