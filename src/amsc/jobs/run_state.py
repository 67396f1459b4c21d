"""How far a run is: everything that is needed to go on identically, as a value and as plain data for the disk."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from amsc.records import Measurement, PathPoint, Record, Timing, TrainingCurve, from_json, to_json
from amsc.regularizers import RegularizedState
from amsc.training import Removal, Speed, TrainState, WalkState, walk_state_from_plain, walk_state_to_plain

__all__ = ["RunState", "removal_of", "run_state_from_plain", "run_state_to_plain"]


@dataclass(frozen=True)
class RunState:
    """How far a run is: `stage` is what it is busy with ("dense", "path", "finetune" or "done").

    `dense` are the dense network's weights, once trained; `score_before`, the mean of `scores_before` (on each test
    example), and `before` belong to it. `curves` are the losses of all training. `train` is the
    training under way, `pulled` that under a regularizer, which leaves `regularized`, the weights that the path goes on
    from; `walk` is the path, `small` the weights of the finished network; `timing` is the model of the
    latency, where the target needs one; `speed` is how training computes; `notes` say what went wrong on the way.
    `seconds` counts the time spent in each stage, also before interruptions.
    """

    stage: str = "dense"
    dense: Mapping[str, Tensor] | None = None
    score_before: float = 0.0
    scores_before: Tensor | None = None
    before: Measurement | None = None
    small: Mapping[str, Tensor] | None = None
    train: TrainState | None = None
    pulled: RegularizedState | None = None
    regularized: Mapping[str, Tensor] | None = None
    walk: WalkState | None = None
    points: tuple[PathPoint, ...] = ()
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    record: Record | None = None
    timing: Timing | None = None
    speed: Speed | None = None
    curves: tuple[TrainingCurve, ...] = ()
    notes: tuple[str, ...] = ()


def removal_of(point: PathPoint) -> Removal:
    """What the point's network lacks."""
    return Removal(point.removed_blocks, point.removed_channels)


def run_state_to_plain(state: RunState) -> dict[str, Any]:
    """The state as dictionaries, lists, tensors, numbers and strings; records as JSON."""
    return {
        "stage": state.stage,
        "dense": state.dense,
        "small": state.small,
        "score_before": state.score_before,
        "scores_before": state.scores_before,
        "before": None if state.before is None else to_json(state.before),
        "train": None if state.train is None else state.train.to_plain(),
        "pulled": None if state.pulled is None else state.pulled.to_plain(),
        "regularized": state.regularized,
        "walk": None if state.walk is None else walk_state_to_plain(state.walk),
        "points": [to_json(point) for point in state.points],
        "seconds": dict(state.seconds),
        "record": None if state.record is None else to_json(state.record),
        "timing": None if state.timing is None else to_json(state.timing),
        "speed": None if state.speed is None else vars(state.speed),
        "curves": [to_json(curve) for curve in state.curves],
        "notes": list(state.notes),
    }


def run_state_from_plain(plain: Mapping[str, Any]) -> RunState:
    """What `run_state_to_plain` gave, also after a way through a file."""

    def read(kind: Any, text: str | None) -> Any:
        return None if text is None else from_json(kind, text)

    return RunState(
        **{
            **plain,
            "before": read(Measurement, plain["before"]),
            "train": None if plain["train"] is None else TrainState(**plain["train"]),
            "pulled": None if plain.get("pulled") is None else RegularizedState(**plain["pulled"]),
            "walk": None if plain["walk"] is None else walk_state_from_plain(plain["walk"]),
            "points": tuple(from_json(PathPoint, text) for text in plain["points"]),
            "record": read(Record, plain["record"]),
            "timing": read(Timing, plain["timing"]),
            "speed": None if plain.get("speed") is None else Speed(**plain["speed"]),
            "curves": tuple(from_json(TrainingCurve, text) for text in plain.get("curves", ())),
            "notes": tuple(plain.get("notes", ())),
        }
    )
