"""What the rule of an operator works with: the ledger, the labels of tensors, the parameters, and what is running."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from amsc.structure.labels.ledger import Ledger
from amsc.structure.tracing.labelled import Labelled
from amsc.structure.tracing.parameters import Parameters
from amsc.structure.tracing.running import Running, running_line

__all__ = ["Tracer"]


@dataclass(frozen=True)
class Tracer:
    """The books of one observed run. `foldable`: the layers whose bias can have what they read of a constant."""

    ledger: Ledger
    running: Running
    parameters: Parameters
    labels: Labelled
    foldable: Collection[str]

    @classmethod
    def of(
        cls,
        tensors: Mapping[str, Tensor],
        names: Mapping[int, str],
        *,
        moves: Collection[str],
        kernels: Collection[str] = (),
        foldable: Collection[str] = (),
    ) -> "Tracer":
        """Empty books.

        Args:
            tensors: the network's parameters and buffers by name.
            names: name of every module of the network, by `id`.
            moves: names of the operators that only move data.
            kernels: names of the tensors that belong to convolutions.
            foldable: names of the layers whose bias can have what they read of a constant.
        """
        ledger, running = Ledger(locate=running_line), Running(names)
        parameters = Parameters(tensors, kernels, moves, ledger)
        return cls(ledger, running, parameters, Labelled(ledger, parameters, running), foldable)

    @property
    def module(self) -> str:
        """Name of the module that is running ("" for the network itself)."""
        return self.running.module

    @property
    def reason(self) -> str:
        """The operator that is running, and where: what to name when it pins something."""
        return self.running.reason

    def folds(self, weight: Tensor) -> str:
        """The layer that is running if a constant that it reads through `weight` can move into its bias, else ""."""
        view = self.parameters.view(weight)
        is_own = view is not None and view[0].name == f"{self.module}.weight".removeprefix(".")
        return self.module if is_own and self.module in self.foldable else ""

    def pin_all(self, arguments: Any, why: str) -> None:
        """Everything labelled among the arguments of the running operator stays; `why` goes on after its name."""
        reason = f"{self.reason} {why}".rstrip()
        for leaf in pytree.tree_leaves(arguments):
            if isinstance(leaf, Tensor):
                view = self.parameters.view(leaf)
                if view is not None:
                    self.parameters.pin(view[0], reason)
                else:
                    self.ledger.pin_layers(self.labels.layers(leaf), reason)
