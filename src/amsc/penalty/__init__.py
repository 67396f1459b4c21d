"""The adaptive group penalty over blocks and channels, and its exact proximal map."""

from amsc.penalty.bypass import find_bypassed_groups
from amsc.penalty.coordinates import Coordinates, Normalisation, Slices, find_coordinates
from amsc.penalty.gate_path import GateProblem, closing_order, solve_gates
from amsc.penalty.groups import Groups, gate_derivatives, gates_from_gradients, zero_leaves
from amsc.penalty.membership import Membership
from amsc.penalty.penalty import CURRENCIES, Penalty, check_strength, empty_, emptying_times, group_norms, reweighted
from amsc.penalty.prox import block_soft_threshold, leaf_factors, nested_factors, root_factors
from amsc.penalty.sizes import parameters_held, saved_cost, saved_macs
from amsc.penalty.weights import WEIGHTS, group_weights, sensitivity_weights

__all__ = [
    "CURRENCIES",
    "WEIGHTS",
    "Coordinates",
    "GateProblem",
    "Groups",
    "Membership",
    "Normalisation",
    "Penalty",
    "Slices",
    "block_soft_threshold",
    "check_strength",
    "closing_order",
    "empty_",
    "emptying_times",
    "find_bypassed_groups",
    "find_coordinates",
    "gate_derivatives",
    "gates_from_gradients",
    "group_norms",
    "group_weights",
    "leaf_factors",
    "nested_factors",
    "parameters_held",
    "reweighted",
    "root_factors",
    "saved_cost",
    "saved_macs",
    "sensitivity_weights",
    "solve_gates",
    "zero_leaves",
]
