"""What each group is worth to the loss, from the gradients that training has anyway."""

import torch
from torch import Tensor

from amsc.errors import TrainingError
from amsc.penalty import Penalty, gate_derivatives, reweighted

__all__ = ["GateWatch"]


class GateWatch:
    """Watches some steps of an optimiser: `before` and `after` each, then `reweighted` for the penalty with the weights
    of "fisher".

    The derivatives by the gates are those of whole batches, at the weights before the step: a loop may compute its
    gradients inside of the step, so that they are there only after it."""

    def __init__(self, penalty: Penalty) -> None:
        self._penalty = penalty
        self._values: list[Tensor] = []
        self._squares: list[Tensor] = []

    def before(self) -> None:
        """To be called before a step."""
        self._values = [parameter.detach().clone() for parameter in self._penalty.parameters()]

    def after(self) -> None:
        """To be called after it, while the gradients are there."""
        parameters = self._penalty.parameters()
        gradients = [parameter.grad for parameter in parameters]
        gates = torch.cat(gate_derivatives(self._penalty.groups, self._values, gradients))
        self._squares.append(gates.square())
        self._values = []

    def reweighted(self) -> Penalty:
        """The penalty with the weights that the steps tell. Steps whose gradients are not finite, as a GradScaler's
        first, tell nothing.

        Raises:
            TrainingError: none told anything.
        """
        told = [squares for squares in self._squares if bool(torch.isfinite(squares).all())]
        if not told:
            raise TrainingError(
                f"in {len(self._squares)} steps no gradient was finite, so that nothing is known of what the groups "
                'are worth; check the loss and the learning rate, or choose weights="amsc"'
            )
        mean = torch.stack(told).mean(0)
        count = len(self._penalty.channels)
        return reweighted(self._penalty, mean[:count], mean[count:])
