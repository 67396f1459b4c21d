"""The losses of training as a run goes along, thinned to what a chart can show, and the scores between them."""

import math
from collections.abc import Sequence
from dataclasses import replace

from amsc.progress import Progress
from amsc.records import TrainingCurve

__all__ = ["LossLog"]

MOST = 400
"""Losses of a phase that are kept, about: a line has no more bends than an eye can follow."""


class LossLog:
    """Hands on what it hears to a listener, and keeps the losses and the scores of the same training.

    Args:
        listener: hears all of it.
        per_epoch: steps per epoch.
        curves, notes: those of the run before it was left.
    """

    def __init__(
        self, listener: Progress, per_epoch: int, curves: Sequence[TrainingCurve] = (), notes: Sequence[str] = ()
    ) -> None:
        self._listener, self._per_epoch = listener, per_epoch
        self._curves, self._notes = list(curves), list(notes)

    @property
    def curves(self) -> tuple[TrainingCurve, ...]:
        """What was heard so far."""
        return tuple(self._curves)

    @property
    def notes(self) -> tuple[str, ...]:
        """What went wrong on the way, in words for the record."""
        return tuple(self._notes)

    def update(self, phase: str, step: int, steps: int, **values: float) -> None:
        """Keep the loss, if there is one and the last that was kept is not too near, and a score beside it; hand
        everything on."""
        loss, score = values.get("loss", math.nan), values.get("score", math.nan)
        epoch = round(step / self._per_epoch, 4)
        if rate := values.get("rolled_back"):
            self._notes.append(
                f"the loss of the {phase} phase was no finite number after step {step} of {steps}: "
                f"training was taken back there, and went on with half the learning rate ({rate:.3g})"
            )
        if math.isfinite(loss):
            apart = 0.0 if step == steps else steps / MOST / self._per_epoch
            self._add(phase, epoch, float(f"{loss:.4g}"), apart)
            if math.isfinite(score):
                self._add_score(epoch, float(f"{score:.6g}"))
        self._listener.update(phase, step, steps, **values)

    def _add(self, phase: str, epoch: float, loss: float, apart: float) -> None:
        """The last curve with another loss, or a new curve: of another phase, or because it begins again."""
        last = self._curves[-1] if self._curves else None
        if last is None or last.phase != phase or epoch < last.epochs[-1]:
            self._curves.append(TrainingCurve(phase, (epoch,), (loss,)))
        elif epoch > last.epochs[-1] and epoch - last.epochs[-1] >= apart:  # the end of an epoch is told twice
            self._curves[-1] = replace(last, epochs=(*last.epochs, epoch), losses=(*last.losses, loss))

    def _add_score(self, epoch: float, score: float) -> None:
        """The last curve, to which the loss at this moment belongs, with another score."""
        last = self._curves[-1]
        if not last.score_epochs or epoch > last.score_epochs[-1]:
            epochs, scores = (*last.score_epochs, epoch), (*last.scores, score)
            self._curves[-1] = replace(last, score_epochs=epochs, scores=scores)
