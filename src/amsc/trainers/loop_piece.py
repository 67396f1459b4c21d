"""One piece of the path inside somebody else's loop: first measure what groups are worth, then steer the penalty."""

from torch import Tensor, nn
from torch.optim import Optimizer

from amsc.penalty import Penalty
from amsc.structure import Rounding, Structure
from amsc.trainers.prices import GateWatch
from amsc.training import ProximalStep
from amsc.training.path.piece import Piece, Position
from amsc.training.path.strength import StrengthControl

__all__ = ["LoopPiece"]


class LoopPiece:
    """Give `before_step` and `after_step` to the optimiser; at the end of the piece call `settled` and `end`.

    With the weights "fisher" the first `measured` steps penalise nothing: their gradients say what each group is worth.

    Args:
        optimizer: whose steps these are; it is not called.
        kind: "depth" or "width".
        position: where the penalised part of the piece lies on its plan.
        control: what is known of the strength so far.
        weights: "fisher", or those of `Penalty`.
        first: the step of the piece with which it begins, where an earlier training had begun it.

    Raises:
        TrainingError: the optimiser is of another kind, lacks penalised parameters, or has several step sizes for them.
    """

    def __init__(
        self,
        network: nn.Module,
        structure: Structure,
        optimizer: Optimizer,
        kind: str,
        position: Position,
        control: StrengthControl,
        *,
        weights: str,
        measured: int,
        rounding: Rounding,
        first: int = 0,
    ) -> None:
        self._network, self._structure, self._optimizer, self._rounding = network, structure, optimizer, rounding
        self._kind, self._position = kind, position
        self.control = control
        by_price = weights == "fisher"
        penalty = Penalty(structure, network, weights="amsc" if by_price else weights, currency="target")
        self._proximal = ProximalStep(optimizer, penalty, regroup=False)
        if penalty.parameters():
            self._proximal.step_size()  # refused now if there are several
        self._step, self._measured = first, measured
        self._begin_at = first + measured
        self._piece: Piece | None = None
        self._watch = GateWatch(penalty) if by_price and penalty.parameters() else None
        self._penalise_once_measured()

    @property
    def penalty(self) -> Penalty:
        """The penalty."""
        return self._proximal.penalty

    def before_step(self) -> None:
        """To be called before each step of the optimiser."""
        if self._piece is None:
            assert self._watch is not None, "measuring"
            self._watch.before()
        else:
            self._piece.before(self._step - self._measured)
            self._proximal.before_step()

    def after_step(self) -> None:
        """To be called after it."""
        if self._piece is None:
            assert self._watch is not None, "measuring"
            self._watch.after()
        else:
            self._proximal.after_step()
            self._piece.after(self._step - self._measured)
            self.control = self._piece.control
        self._step += 1
        self._penalise_once_measured()

    def settled(self) -> tuple[Tensor, Tensor]:
        """Which blocks and channels stayed zero, or are now if it ends before its time. Shapes: block, channel."""
        if self._piece is None:
            return self.penalty.zero_blocks(), self.penalty.zero_channels()
        return self._piece.settled()

    def end(self) -> None:
        """To be called after the last step, before anything is cut."""
        if self._piece is not None:
            self._piece.end()

    def watch(self) -> dict[str, float]:
        """Cost, blocks, channels and MACs left without what is zero, as of the last look; and the strength. Empty while
        it measures."""
        if self._piece is None:
            return {}
        return {"cost": self._piece.cost, "strength": self.control.strength, **self._piece.watch()}

    def _penalise_once_measured(self) -> None:
        if self._piece is not None or (self._watch is not None and self._step < self._begin_at):
            return
        if self._watch is not None:
            self._proximal = ProximalStep(self._optimizer, self._watch.reweighted(), regroup=False)
        self._piece = Piece(
            self._kind,
            self._network,
            self._structure,
            self._proximal,
            self._position,
            self.control.afresh(),
            rounding=self._rounding,
            sets_rate=False,
        )
