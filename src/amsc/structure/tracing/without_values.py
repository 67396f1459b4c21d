"""A model without values (on the meta device) run as if it had some: only shapes are computed."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from amsc.borrowing import map_tensors

__all__ = ["computing_aside", "fakes"]


@contextlib.contextmanager
def fakes(tensors: Mapping[str, Tensor], example_inputs: Any) -> Iterator[tuple[dict[str, Tensor], Any]]:
    """`tensors` and `example_inputs` without values, in a context in which operators accept them.

    Meta tensors alone would do for most models, but some ask whether they are being traced before they look at a
    value, and know these."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield (
            {name: mode.from_tensor(tensor) for name, tensor in tensors.items()},
            map_tensors(mode.from_tensor, example_inputs),
        )


@contextlib.contextmanager
def computing_aside() -> Iterator[None]:
    """Tensors with values are computed with, inside `fakes`."""
    from torch.utils._python_dispatch import _disable_current_modes

    with _disable_current_modes():
        yield
