"""Cutting a network: the plan as data, the cut on a copy, its proof, and saving what came out."""

from amsc.surgery.apply import apply_plan, cut_tensors, masked, plan_of
from amsc.surgery.composition import compose
from amsc.surgery.describable import uniformly_removable
from amsc.surgery.fold import unfolded
from amsc.surgery.in_place import become
from amsc.surgery.matching import match_channels
from amsc.surgery.passthrough import stand_in
from amsc.surgery.plan import AxisCut, CutPlan, plan_cut, proven_part
from amsc.surgery.pretrained import save_pretrained
from amsc.surgery.stock import is_of_transformers
from amsc.surgery.store import load, save
from amsc.surgery.trial import cuttable
from amsc.surgery.verification import verify
from amsc.surgery.verified_cut import cut, cut_with_error

__all__ = [
    "AxisCut",
    "CutPlan",
    "apply_plan",
    "become",
    "compose",
    "cut",
    "cut_tensors",
    "cut_with_error",
    "cuttable",
    "is_of_transformers",
    "load",
    "masked",
    "match_channels",
    "plan_cut",
    "plan_of",
    "proven_part",
    "save",
    "save_pretrained",
    "stand_in",
    "unfolded",
    "uniformly_removable",
    "verify",
]
