"""Several processes that do one job together: each makes the same calls, and the work on examples is shared."""

from amsc.parallel.agreement import check_agreement
from amsc.parallel.gradients import share_gradients
from amsc.parallel.norms import SharedNorms
from amsc.parallel.processes import World, all_together, apart, joined, world
from amsc.parallel.sharing import by_first, highest, in_turn, shared, summed, told, told_of_failure

__all__ = [
    "SharedNorms",
    "World",
    "all_together",
    "apart",
    "by_first",
    "check_agreement",
    "highest",
    "in_turn",
    "joined",
    "share_gradients",
    "shared",
    "summed",
    "told",
    "told_of_failure",
    "world",
]
