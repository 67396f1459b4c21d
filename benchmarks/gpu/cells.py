"""What is trained: which network, made smaller how, to which share of its multiply-adds; most telling first."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["NETWORKS", "SEEDS", "SHARES", "TIMED_NETWORKS", "WAYS", "Cell", "Way", "ordered"]

NETWORKS = ("resnet56", "resnet20", "resnet110", "densenet40")
"""VGG-16 is left out: its state between two calls would be 120 MiB."""
TIMED_NETWORKS = ("resnet56", "resnet20")
SHARES = (0.41, 0.6, 0.2)
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Way:
    """How a network is made smaller, by `kind`: it is not ("dense"), a run of `amsc.compress` without training and with
    these `choices` of its settings ("compress"), one that trains on its path for the share `walked` of the epochs
    ("path"), or the same share of every layer's filters, those of the least L1 norm ("L1"). `is_taught`: its
    fine-tuning learns from the dense network too. `cut_as`: the way with the same cut."""

    kind: str
    choices: Mapping[str, Any] = field(default_factory=dict)
    is_taught: bool = False
    walked: float = 0.0
    cut_as: str = ""


WAYS: Mapping[str, Way] = {
    "dense": Way("dense"),
    "dense, longer": Way("dense"),
    "default": Way("compress", is_taught=True),
    "default, no distillation": Way("compress", cut_as="default"),
    "paper": Way("path", walked=0.5),
    "depth only": Way("compress", {"min_channels": 10**6}, is_taught=True),
    "width only": Way("compress", {"depth_share": 0.0}, is_taught=True),
    "L1, uniform": Way("L1", is_taught=True),
    "L1, uniform, no distillation": Way("L1", cut_as="L1, uniform"),
}
"""All but "dense" start from the network that "dense" makes of the given weights."""
FIRST = ("default", "L1, uniform", "width only", "paper")
THEN = ("default, no distillation", "L1, uniform, no distillation", "depth only")


@dataclass(frozen=True)
class Cell:
    """One network to train. "dense" ways have the share 1."""

    network: str
    way: str
    share: float
    seed: int
    epochs: float
    batch: int

    @property
    def name(self) -> str:
        """What its result is kept under."""
        return f"{self.network} {self.way} {self.share:g} seed {self.seed} epochs {self.epochs:g} batch {self.batch}"

    @property
    def how(self) -> Way:
        """What its way means."""
        return WAYS[self.way]

    @property
    def cut(self) -> str:
        """The name of its cut, which other cells may have too."""
        return f"{self.network} {self.how.cut_as or self.way} {self.share:g} seed {self.seed}"

    @property
    def is_cut(self) -> bool:
        """Whether something is removed from the dense network."""
        return self.how.kind != "dense"

    @property
    def dense(self) -> "Cell":
        """The cell whose network this one starts from."""
        return Cell(self.network, "dense", 1.0, 0, self.epochs, self.batch)


def ordered(
    network: str, *, epochs: float, batch: int, ways: Sequence[str], shares: Sequence[float], seeds: Sequence[int]
) -> Iterator[Cell]:
    """The cells of a network, most telling first: all that compares at one share, the other shares, other seeds."""

    def cell(way: str, share: float, seed: int) -> Cell:
        return Cell(network, way, share, seed, epochs, batch)

    chosen = [share for share in SHARES if share in shares]
    yield cell("dense", 1.0, 0)
    for seed in seeds:
        plan = [(way, share) for share in chosen[:1] for way in FIRST]
        plan += [("dense, longer", 1.0)]
        plan += [(way, share) for share in chosen[1:] for way in FIRST]
        plan += [(way, share) for share in chosen for way in THEN]
        yield from (cell(way, share, seed) for way, share in plan if way in ways)
