"""Where a walk stands after a piece: all that is needed to go on identically, as frozen values and as plain data."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from amsc.structure.rounding import Rounding
from amsc.training.path.strength import StrengthControl
from amsc.training.removal.bunches import ANY_NUMBER
from amsc.training.removal.removed import Removal
from amsc.training.steps.optimizers import DEFAULT, Moments, OptimizerChoice
from amsc.training.steps.step import AS_IS, Speed

__all__ = ["Candidate", "Snapshot", "WalkSettings", "WalkState", "walk_state_from_plain", "walk_state_to_plain"]


@dataclass(frozen=True)
class WalkSettings:
    """The choices of a walk.

    `method` is "proximal" (the penalty empties what goes), "gates" (see `walk`), or "criterion" where a `thinning` from
    above decides and nothing is trained. `epochs` of training (may be a
    fraction) are divided into `points` equal pieces, of which depth gets the share `depth_share`, rounded down, at
    least one and never all: a path of a single piece has no depth phase. Depth may use at most that share of the cost
    to be saved, to the nearest block. `depth_rule` is "one-standard-error", "share" or "equal-cost": no piece is for
    depth then, the blocks go before the first (see `depth_at_equal_cost`). `weights` are "fisher" (see
    `gate_sensitivities`) or those of `Penalty`, as is `currency`. `theta_hat` is the "dense" network, what a first
    piece with the weights of the group lasso makes of it ("group-lasso"), or "refreshed" before each piece.
    `epochs_before` is what was trained before the walk; `rounding` says how many channels a group
    may be cut to, `reconstruction` with how many examples a cut is repaired (0: it is not), `streams` that those of
    residual streams may go as well (with "gates").
    """

    seed: int = 0
    method: str = "proximal"
    epochs: float = 8.0
    points: int = 8
    depth_share: float = 0.5
    depth_rule: str = "one-standard-error"
    weights: str = "amsc"
    theta_hat: str = "dense"
    currency: str = "target"
    optimizer: OptimizerChoice = DEFAULT
    epochs_before: float = 0.0
    rounding: Rounding = ANY_NUMBER
    reconstruction: int = 0
    streams: bool = False
    speed: Speed = AS_IS


@dataclass(frozen=True)
class Snapshot:
    """A network on the path: what was removed from the dense one, its state dict, its optimiser's moments, and
    theta_hat (named and shaped as its state dict) where that is not the dense network."""

    removal: Removal
    weights: Mapping[str, Tensor]
    moments: Moments = field(default_factory=dict)
    theta_hat: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """A point of the depth phase from which the width phase may start; `per_example` are its validation scores."""

    blocks_left: int
    per_example: Tensor
    depth_strength: float
    snapshot: Snapshot


@dataclass(frozen=True)
class WalkState:
    """A walk after `index` pieces, `first` of which lie before the present phase ("depth", "width" or "done").

    The phase began at `start_cost`. `depth_strength` is what the width phase holds on to; `control` steers the
    strength of the phase; `error` is the largest relative error of all cuts made. `halved` is how often the learning
    rate was halved because a loss was no number.
    """

    phase: str
    index: int
    first: int
    start_cost: int
    snapshot: Snapshot
    control: StrengthControl = field(default_factory=StrengthControl)
    depth_strength: float = 0.0
    candidates: tuple[Candidate, ...] = ()
    error: float = 0.0
    halved: int = 0


def walk_state_to_plain(state: WalkState) -> dict[str, Any]:
    """The state as dictionaries, lists, tensors, numbers and strings; tensors are shared, not copied."""
    numbers = ("phase", "index", "first", "start_cost", "depth_strength", "error", "halved")
    plain = {name: getattr(state, name) for name in numbers}
    candidates = [
        {**vars(candidate), "snapshot": _snapshot_to_plain(candidate.snapshot)} for candidate in state.candidates
    ]
    return {
        **plain,
        "control": asdict(state.control),
        "snapshot": _snapshot_to_plain(state.snapshot),
        "candidates": candidates,
    }


def walk_state_from_plain(plain: Mapping[str, Any]) -> WalkState:
    """What `walk_state_to_plain` gave, also after a way through a file."""
    candidates = (
        Candidate(**{**candidate, "snapshot": _snapshot_from_plain(candidate["snapshot"])})
        for candidate in plain["candidates"]
    )
    return WalkState(
        **{
            **plain,
            "control": StrengthControl(**plain["control"]),
            "snapshot": _snapshot_from_plain(plain["snapshot"]),
            "candidates": tuple(candidates),
        }
    )


def _snapshot_to_plain(snapshot: Snapshot) -> dict[str, Any]:
    removal = {"blocks": snapshot.removal.blocks, "channels": snapshot.removal.channels}
    rest = {name: getattr(snapshot, name) for name in ("weights", "moments", "theta_hat")}
    return {"removal": removal, **rest}


def _snapshot_from_plain(plain: Mapping[str, Any]) -> Snapshot:
    removal = plain["removal"]
    channels = {name: tuple(indices) for name, indices in removal["channels"].items()}
    rest = {name: dict(plain[name]) for name in ("weights", "moments", "theta_hat")}
    return Snapshot(Removal(tuple(removal["blocks"]), channels), **rest)
