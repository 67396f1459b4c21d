"""amsc inside of somebody else's training loop: by hand, in Lightning or in the Trainer of transformers.

The callbacks are in `amsc.trainers.lightning` and `amsc.trainers.transformers`, which need these libraries.
"""

from amsc.trainers.compression import Compression, MadeCut
from amsc.trainers.course import LoopSettings
from amsc.trainers.in_place import cut_in_place
from amsc.trainers.state import LoopState, cut_as, read_state, write_state
from amsc.trainers.zeros import strength_for, zero_plan

__all__ = [
    "Compression",
    "LoopSettings",
    "LoopState",
    "MadeCut",
    "cut_as",
    "cut_in_place",
    "read_state",
    "strength_for",
    "write_state",
    "zero_plan",
]
