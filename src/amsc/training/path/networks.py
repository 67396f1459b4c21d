"""A path's networks: made again from what is kept of them, and cut to what a target needs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from amsc.data import Data
from amsc.penalty import Penalty, reweighted
from amsc.structure.costing import predicted_cost
from amsc.structure.structure import Structure
from amsc.tasks import Task
from amsc.training.gates.choice import GateChoice
from amsc.training.gates.scan_gates import Recovery, StandIn, choose_gates, find_gates, gate_derivatives
from amsc.training.gates.sensitivity import gate_sensitivities
from amsc.training.path.memo import Memo, NoMemo
from amsc.training.path.state import Snapshot, WalkSettings
from amsc.training.removal.removed import Removal, Repair, Shrink, Shrunk, compose_removals
from amsc.training.removal.to_cost import blocks_needed, cut_to_target, lowest_cost
from amsc.training.steps.evaluation import reestimate_batchnorm
from amsc.training.steps.optimizers import cut_moments

__all__ = ["Narrowing", "Trail", "copied_tensors"]

Narrowing = Callable[[Shrunk, int], Removal]
"""What goes of a network, in its own numbers, so that it costs so much or just less; given from above."""

SCANNED = 512
"""Training examples in each scan."""
FEW = 256
"""Training examples with which a network is repaired whose block is only priced."""
BEHIND = 3
"""Layers that are refitted then."""


@dataclass(frozen=True, eq=False)
class Trail:
    """What stays the same along a path: the `dense` network and its structure, what it learns, how copies of it are
    cut, and the choices; `repair` gives back what a cut costs, or None, and `recovery` says what will be left of that
    then, or None where channels are to have their prices before. `narrowing` says what is cut where a network must cost
    less than it turned out; None: what the penalty would empty next. A search asks `memo` first. A trail makes the
    networks of the path."""

    dense: nn.Module
    structure: Structure
    data: Data
    task: Task
    shrink: Shrink
    settings: WalkSettings
    repair: Repair | None = None
    recovery: Recovery | None = None
    narrowing: Narrowing | None = None
    memo: Memo = field(default_factory=NoMemo)

    def scanned(
        self, live: Shrunk, stand_in: StandIn, *, dimensions: str = "both", depth_share: float = 0.0
    ) -> GateChoice:
        """What a scan of a network says would go for any cost; the rest as of `choose_gates`."""
        settings = self.settings
        structure, gates = find_gates(live.structure, live.model, streams=settings.streams)
        found = gate_derivatives(
            live.model, structure, gates, self.data, self.task, stand_in=stand_in, examples=SCANNED
        )
        groups = {name for name, _ in gates.channels}
        return choose_gates(
            structure,
            gates,
            found,
            currency=settings.currency,
            dimensions=dimensions,
            depth_share=depth_share,
            rounding=settings.rounding,
            remainders=self.recovery(live.model, structure, groups) if self.recovery else None,
        )

    def cut(self, live: Shrunk, removal: Removal) -> Shrunk:
        """`live` without `removal` (in its own numbers), brought as near to it as that can be without training."""
        cut = self.shrink(live.model, live.structure, removal)
        if self.repair is None or not removal:
            return cut
        return self.repair(cut, live.model, live.structure, removal, self.settings.reconstruction)

    def tried(self, live: Shrunk, block: str) -> Shrunk:
        """`live` without a block, brought near to it as cheaply as shows what the block is worth: the first layers
        behind it, on few examples."""
        removal = Removal((block,))
        cut = self.shrink(live.model, live.structure, removal)
        if self.repair is None:
            reestimate_batchnorm(cut.model, self.data, speed=self.settings.speed)
            return cut
        examples = min(FEW, self.settings.reconstruction)
        return self.repair(cut, live.model, live.structure, removal, examples, layers=BEHIND)

    def settled(self, cut: Shrunk, removal: Removal) -> Shrunk:
        """A network `cut` by `removal` (in the dense network's numbers) brought as near to the dense one as that can be
        without training; or with the statistics of BatchNorm estimated anew, where nothing is repaired."""
        if self.repair is None:
            reestimate_batchnorm(cut.model, self.data, speed=self.settings.speed)
            return cut
        if not removal:
            return cut
        return self.repair(cut, self.dense, self.structure, removal, self.settings.reconstruction)

    def rebuild(self, snapshot: Snapshot) -> Shrunk:
        """The network of `snapshot`, cut from the dense one and with the snapshot's weights."""
        shrunk = self.shrink(self.dense, self.structure, snapshot.removal)
        shrunk.model.load_state_dict(dict(snapshot.weights))
        return shrunk

    def cut_down(self, snapshot: Snapshot, target_cost: int) -> tuple[Snapshot, float]:
        """The network of `snapshot` without what the penalty would empty next (or `narrowing` says), so that it costs
        `target_cost` or just less, and the relative error that verifying the cut gave. **The function changes**; what
        that costs is given back (see `cut`), or else BatchNorm is re-estimated.

        Raises:
            TargetError: no removal reaches the target.
        """
        live = self.rebuild(snapshot)
        if self.narrowing is not None:
            return self._without(self.narrowing(live, target_cost), snapshot, live)
        penalty = self.penalty_of(live, self.settings.weights)
        blocks, channels = penalty.zero_blocks(), penalty.zero_channels()
        removal = cut_to_target(live.structure, penalty, blocks, channels, target_cost, self.settings.rounding)
        return self._without(removal, snapshot, live)

    def without_what_is_in_the_way(self, snapshot: Snapshot, target_cost: int) -> tuple[Snapshot, float]:
        """`snapshot` without the blocks that would keep the cost above `target_cost` if all channels went that can;
        those go first that the penalty would empty first. Else they would go at the end, when channels that could have
        stayed in their place are gone; and plain convolutions can only go before channels do. Outcome as of `cut_down`.

        Raises:
            TargetError: no removal reaches the target.
        """
        live, settings = self.rebuild(snapshot), self.settings
        if predicted_cost(live.structure) <= target_cost:
            return snapshot, 0.0
        _, gates = find_gates(live.structure, live.model, streams=settings.streams)
        if lowest_cost(live.structure, gates.channels, settings.rounding) <= target_cost:
            return snapshot, 0.0
        gone = blocks_needed(
            live.structure, self.penalty_of(live, settings.weights), gates.channels, target_cost, settings.rounding
        )
        return self._without(Removal(gone), snapshot, live)

    def _without(self, removal: Removal, snapshot: Snapshot, live: Shrunk) -> tuple[Snapshot, float]:
        """`snapshot`, whose network is `live`, without `removal` (in the numbers of `live`), and the cut's error."""
        cut = self.cut(live, removal)
        if self.repair is None:
            reestimate_batchnorm(cut.model, self.data, speed=self.settings.speed)
        smaller = Snapshot(
            compose_removals(self.structure, snapshot.removal, removal),
            copied_tensors(cut.model.state_dict()),
            cut_moments(snapshot.moments, cut.slice_tensors),
            cut.slice_tensors(snapshot.theta_hat),
        )
        return smaller, cut.error

    def penalty_of(self, live: Shrunk, weights: str, *, theta_hat: Mapping[str, Tensor] | None = None) -> Penalty:
        """The penalty of a network, with these weights: "fisher", or those of `Penalty`.

        `theta_hat` is the dense network if None."""
        by_sensitivity = weights == "fisher"
        penalty = Penalty(
            live.structure,
            live.model,
            weights="amsc" if by_sensitivity else weights,
            currency=self.settings.currency,
            reference=live.slice_tensors(self.dense.state_dict()) if theta_hat is None else theta_hat,
        )
        if by_sensitivity:
            found = gate_sensitivities(live.model, penalty, self.data, self.task, speed=self.settings.speed)
            penalty = reweighted(penalty, *found)
        return penalty


def copied_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, copied."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}
