"""The adaptive group penalty over blocks and channels, and its exact proximal map."""

from amsc.penalty.coordinates import Coordinates, Normalisation, Slices, find_coordinates
from amsc.penalty.penalty import CURRENCIES, Penalty
from amsc.penalty.prox import block_soft_threshold, leaf_factors, nested_factors, root_factors
from amsc.penalty.weights import WEIGHTS, group_weights, sensitivity_weights

__all__ = [
    "CURRENCIES",
    "WEIGHTS",
    "Coordinates",
    "Normalisation",
    "Penalty",
    "Slices",
    "block_soft_threshold",
    "find_coordinates",
    "group_weights",
    "leaf_factors",
    "nested_factors",
    "root_factors",
    "sensitivity_weights",
]
