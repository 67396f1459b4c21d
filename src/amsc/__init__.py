"""amsc makes trained PyTorch networks smaller in depth and in width at once, and proves it.

structure = amsc.trace(model, example_inputs)      # what can go, what cannot, and why
structure = amsc.cuttable(model, structure, example_inputs)   # less what a trial shows cannot go
plan = amsc.plan_cut(structure, channels={...}, blocks=[...])
small = amsc.cut(model, plan)                      # a new, smaller model, verified
result = amsc.compress(model, example_inputs, data, target=amsc.Target(macs=0.5), out="runs/half")
found = amsc.scan(model, example_inputs, data)     # the frontier in a minute, without training
result = amsc.pick("runs/half", model, example_inputs, data, target=amsc.Target(macs=0.7))
"""

from amsc.errors import AmscError
from amsc.export import export_onnx, export_pt2
from amsc.jobs.compress import Result, compress
from amsc.jobs.pick import pick
from amsc.jobs.scan import Scan, scan
from amsc.limits.target import Target
from amsc.measurement import measure
from amsc.penalty import Penalty
from amsc.settings import Settings
from amsc.structure import Structure, round_channels, select, trace
from amsc.surgery import cut, cuttable, load, plan_cut, save
from amsc.training import ProximalStep, walk

__all__ = [
    "AmscError",
    "Penalty",
    "ProximalStep",
    "Result",
    "Scan",
    "Settings",
    "Structure",
    "Target",
    "compress",
    "cut",
    "cuttable",
    "export_onnx",
    "export_pt2",
    "load",
    "measure",
    "pick",
    "plan_cut",
    "round_channels",
    "save",
    "scan",
    "select",
    "trace",
    "walk",
]
