"""Training: the proximal step, the path with its budget, the choice of the depth, fine-tuning, and state on disk."""

from amsc.training.checkpoint import load_state, save_state
from amsc.training.choose import one_standard_error_choice, paired_shortfall
from amsc.training.distillation import Distillation
from amsc.training.evaluation import Evaluation, evaluate, mean_loss, reestimate_batchnorm, scores_of
from amsc.training.finetune import TrainSettings, TrainState, finetune
from amsc.training.gate_choice import DIMENSIONS, GateChoice
from amsc.training.gate_gradients import GateGradients, gate_gradients
from amsc.training.gating import StandIn, choose_gates, find_gates, gate_derivatives
from amsc.training.loop import Batches, Speed, Stretch, device_of, forward, train_steps
from amsc.training.progress import NoProgress, Progress
from amsc.training.proximal import ProximalStep
from amsc.training.removal import Removal, Shrink, Shrunk
from amsc.training.selection import fewest_channels
from amsc.training.trail import Trail
from amsc.training.walk import num_channels, walk
from amsc.training.walk_state import Snapshot, WalkSettings, WalkState, walk_state_from_plain, walk_state_to_plain

__all__ = [
    "DIMENSIONS",
    "Batches",
    "Distillation",
    "Evaluation",
    "GateChoice",
    "GateGradients",
    "NoProgress",
    "Progress",
    "ProximalStep",
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
    "train_steps",
    "walk",
    "walk_state_from_plain",
    "walk_state_to_plain",
]
