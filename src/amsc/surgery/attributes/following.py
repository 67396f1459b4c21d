"""Numbers of which a plan says what they become."""

from collections.abc import Iterable
from dataclasses import replace

from torch import nn

from amsc.surgery.attributes.places import number_at, set_number
from amsc.surgery.plan import NewSize

__all__ = ["set_sizes_at", "sizes_now"]


def set_sizes_at(model: nn.Module, sizes: Iterable[NewSize]) -> None:
    """Set the numbers that `sizes` name; what `model` does not keep (any more) is passed over."""
    modules = dict(model.named_modules())
    for size in sizes:
        if size.module in modules and number_at(modules[size.module], size.place) is not None:
            set_number(modules[size.module], size.place, size.number)


def sizes_now(model: nn.Module, sizes: Iterable[NewSize]) -> tuple[NewSize, ...]:
    """The same places with the numbers that `model` keeps there; a second cut may have changed them by their names."""
    modules = dict(model.named_modules())
    numbers = (
        (size, number_at(modules[size.module], size.place) if size.module in modules else None) for size in sizes
    )
    return tuple(size if number is None else replace(size, number=number) for size, number in numbers)
