"""Training: the proximal step, the path with its budget, the choice of the depth, fine-tuning, and state on disk."""

from amsc.progress import NoProgress, Progress
from amsc.storage import load_state, save_state
from amsc.training.gates.choice import DIMENSIONS, GateChoice, Remainders
from amsc.training.gates.gradients import GateGradients, gate_gradients
from amsc.training.gates.scan_gates import Recovery, StandIn, choose_gates, find_gates, gate_derivatives
from amsc.training.path.depth_rule import one_standard_error_choice, paired_shortfall
from amsc.training.path.networks import Trail
from amsc.training.path.state import (
    Candidate,
    Snapshot,
    WalkSettings,
    WalkState,
    walk_state_from_plain,
    walk_state_to_plain,
)
from amsc.training.path.walk import num_channels, walk
from amsc.training.removal.removed import Removal, Shrink, Shrunk
from amsc.training.removal.to_cost import fewest_channels
from amsc.training.steps.distillation import Distillation
from amsc.training.steps.evaluation import Evaluation, evaluate, mean_loss, reestimate_batchnorm, scores_of
from amsc.training.steps.finetune import TrainSettings, TrainState, finetune
from amsc.training.steps.loop import Batches, Stretch, told_of, train_steps
from amsc.training.steps.optimizers import OptimizerChoice
from amsc.training.steps.proximal import ProximalStep
from amsc.training.steps.step import Speed, device_of, forward

__all__ = [
    "DIMENSIONS",
    "Batches",
    "Candidate",
    "Distillation",
    "Evaluation",
    "GateChoice",
    "GateGradients",
    "NoProgress",
    "OptimizerChoice",
    "Progress",
    "ProximalStep",
    "Recovery",
    "Remainders",
    "Removal",
    "Shrink",
    "Shrunk",
    "Snapshot",
    "Speed",
    "StandIn",
    "Stretch",
    "Trail",
    "TrainSettings",
    "TrainState",
    "WalkSettings",
    "WalkState",
    "choose_gates",
    "device_of",
    "evaluate",
    "fewest_channels",
    "find_gates",
    "finetune",
    "forward",
    "gate_derivatives",
    "gate_gradients",
    "load_state",
    "mean_loss",
    "num_channels",
    "one_standard_error_choice",
    "paired_shortfall",
    "reestimate_batchnorm",
    "save_state",
    "scores_of",
    "told_of",
    "train_steps",
    "walk",
    "walk_state_from_plain",
    "walk_state_to_plain",
]
