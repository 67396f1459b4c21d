"""That processes go on from the same: a decision is compared before anything is built on it."""

import hashlib
from collections.abc import Mapping

from amsc.errors import ParallelError
from amsc.parallel.processes import world
from amsc.parallel.sharing import told

__all__ = ["check_agreement"]


def check_agreement(facts: Mapping[str, object], cure: str) -> None:
    """Refuse to go on where processes differ in one of the `facts`, each of which has a `repr` that says all of it.

    Raises:
        ParallelError: they do, in all processes; the message says in what, and the `cure`.
    """
    if world().is_alone:
        return
    mine = {name: hashlib.blake2b(repr(fact).encode(), digest_size=16).hexdigest() for name, fact in facts.items()}
    every = told(lambda: mine)
    differing = [name for name in mine if len({one[name] for one in every}) > 1]
    if differing:
        raise ParallelError(f"the {world().size} processes of this job differ in {', '.join(differing)}; {cure}")
