"""Decisions beside the rules of operators, each with a way to break it, for check_mutations.py."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

from torch import Tensor

from amsc.structure.grouping import shares
from amsc.structure.operators import elementwise, views
from amsc.structure.tracing.labelled import Labelled
from amsc.structure.tracing.parameters import Parameters
from amsc.surgery import apply

__all__ = ["STEPS", "Step"]


@dataclass(frozen=True)
class Step:
    """A function of amsc by the object that holds it, and what stands in for it when it is broken."""

    says: str
    owner: Any
    name: str
    mutant: Callable[..., Any]

    def __str__(self) -> str:
        return f"{self.name.strip('_')}: {self.says}"

    @contextlib.contextmanager
    def broken(self) -> Iterator[None]:
        """The function is broken inside."""
        with mock.patch.object(self.owner, self.name, self.mutant):
            yield


def nothing(*args: Any, **kwargs: Any) -> None:
    """Does nothing, or finds nothing."""


_rescaled = elementwise._rescaled


def _rescaled_always(tracer: Any, tensors: Any, output: Tensor, gives_zero: Any) -> Any:
    return _rescaled(tracer, tensors, output, lambda marked: True)


STEPS = (
    Step("no weight is followed number by number", elementwise, "_rescaled", nothing),
    Step("any function of a weight keeps its zeros", elementwise, "_rescaled", _rescaled_always),
    Step("any single number stays as it is", Parameters, "is_fixed", lambda self, tensor: tensor.numel() == 1),
    Step("no number stays as it is", Parameters, "is_fixed", lambda self, tensor: False),
    Step("nothing is known to be zero", Labelled, "is_zero", lambda self, tensor: False),
    Step("what has one value is zero", Labelled, "is_zero", lambda self, tensor: self.is_uniform(tensor)),
    Step("buffers do not follow what is written", Labelled, "_label_around", nothing),
    Step("kernels are cut as channels", views, "_keep_kernel", nothing),
    Step("groups may be cut anywhere", shares, "_keep_groups", nothing),
    Step("inputs of groups may be cut anywhere", shares, "_share_inputs", nothing),
    Step("groups may lose unequal shares", shares, "_share_outputs", lambda *args: False),
    Step("shares never go", shares, "_has_shares", lambda grouped: False),
    Step("frozen shifts stay in a silent block", apply, "own_buffers", lambda *args: []),
)
