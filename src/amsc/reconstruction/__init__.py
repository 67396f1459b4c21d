"""Reconstruction: what a cut costs, given back in closed form by refitting the layers that read what is gone."""

from amsc.reconstruction.after_recovery import remainders
from amsc.reconstruction.refit import Reconstruction, reconstruct

__all__ = ["Reconstruction", "reconstruct", "remainders"]
