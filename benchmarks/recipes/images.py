"""Data and networks of the recipes: CIFAR-10 JPEG and trained CIFAR ResNets, in folders that the environment names.

    export AMSC_IMAGES=FOLDER_WITH_TRAIN_AND_TEST_PARQUET AMSC_WEIGHTS=FOLDER_WITH_RESNET20-....TH
    PYTHONPATH=benchmarks amsc bench benchmarks/recipes/resnet20.toml --allow-functions --out benches/resnet20

Validation and test images are two parts of the test file, as in `benchmarks/evidence/cifar10_jpeg.py`: the given
weights were trained on all training images, so that none of those can tell how good a choice is.
"""

import os
import sys
from pathlib import Path

from torch import nn

from amsc.data import Data, open_data
from amsc.models import open_model

sys.path.append(str(Path(__file__).parents[1] / "evidence"))
from cifar10_jpeg import Halved

LIMIT = 10_000
"""Training images."""


def ten_thousand() -> Data:
    """Ten thousand training images, 1,016 for validation, 4,920 for the test."""
    whole = open_data(f"parquet:{_folder('AMSC_IMAGES')}", seed=0, batch_size=128, limit=LIMIT)
    halved: Data = Halved(whole)
    return halved


def resnet20() -> nn.Module:
    """With the given weights."""
    return _trained("resnet20")


def resnet56() -> nn.Module:
    """With the given weights."""
    return _trained("resnet56")


def _trained(name: str) -> nn.Module:
    files = sorted(_folder("AMSC_WEIGHTS").glob(f"{name}-*.th"))
    if not files:
        raise FileNotFoundError(f"there is no {name}-*.th in {os.environ['AMSC_WEIGHTS']}")
    return open_model(name, weights=files[0])


def _folder(variable: str) -> Path:
    if variable not in os.environ:
        raise KeyError(f"set {variable} to the folder (see the recipe)")
    return Path(os.environ[variable])
