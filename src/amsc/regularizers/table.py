"""The regularizers by name, and the criterion that each of their papers cuts by afterwards."""

from collections.abc import Mapping
from dataclasses import dataclass

from amsc.regularizers.by_scales import Polarization, Slimming
from amsc.regularizers.by_weights import Dependency, Growing
from amsc.regularizers.regularizer import Regularizer

__all__ = ["REGULARIZERS", "KnownRegularizer"]


@dataclass(frozen=True)
class KnownRegularizer:
    """A regularizer, and the name of the criterion by whose prices its paper cuts."""

    kind: type[Regularizer]
    criterion: str


REGULARIZERS: Mapping[str, KnownRegularizer] = {
    "slimming": KnownRegularizer(Slimming, "batchnorm-scale"),
    "polarization": KnownRegularizer(Polarization, "batchnorm-scale"),
    "dependency": KnownRegularizer(Dependency, "group-norm"),
    "growing": KnownRegularizer(Growing, "l1"),
}
