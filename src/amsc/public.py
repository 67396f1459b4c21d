"""The public names, gathered; `amsc` hands them on when they are asked for."""

from amsc.borrowing import Calls
from amsc.errors import AmscError
from amsc.export import export_onnx, export_pt2
from amsc.jobs.compress import Result, compress
from amsc.jobs.pick import pick
from amsc.jobs.scan import Scan, scan
from amsc.limits.target import Target
from amsc.measurement import measure
from amsc.penalty import Penalty
from amsc.reconstruction import reconstruct
from amsc.settings import Settings
from amsc.structure import Structure, round_channels, select, trace
from amsc.surgery import cut, cuttable, load, plan_cut, save
from amsc.training import ProximalStep, walk

__all__ = [
    "AmscError",
    "Calls",
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
    "reconstruct",
    "round_channels",
    "save",
    "scan",
    "select",
    "trace",
    "walk",
]
