"""Other people's regularizers: training under a penalty before channels go by their prices, to compare with."""

from amsc.regularizers.parts import Going, GroupParts, Part, going_of, parts_of
from amsc.regularizers.regularizer import Course, Regularizer
from amsc.regularizers.table import REGULARIZERS, KnownRegularizer
from amsc.regularizers.training import RegularizedState, num_steps, step_size_of, train_regularized

__all__ = [
    "REGULARIZERS",
    "Course",
    "Going",
    "GroupParts",
    "KnownRegularizer",
    "Part",
    "RegularizedState",
    "Regularizer",
    "going_of",
    "num_steps",
    "parts_of",
    "step_size_of",
    "train_regularized",
]
