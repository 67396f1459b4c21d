"""Data and networks of the recipes: CIFAR-10 JPEG and trained CIFAR ResNets, in folders that the environment names.

    export AMSC_IMAGES=FOLDER_WITH_TRAIN_AND_TEST_PARQUET AMSC_WEIGHTS=FOLDER_WITH_RESNET20-....TH
    PYTHONPATH=benchmarks amsc bench benchmarks/recipes/resnet20.toml --allow-functions --out benches/resnet20

The given weights were trained on the original images and know those of JPEG less well (80 % of the test for ResNet-20).
So the dense networks are trained on all images of JPEG first, once: they are kept in AMSC_DENSE, or dense/ if that is
not set. The recipes compare on ten thousand of them.

Validation and test images are two parts of the test file, as in `benchmarks/evidence/cifar10_jpeg.py`: the given
weights were trained on all training images, so that none of those can tell how good a choice is.
"""

import argparse
import os
import sys
from pathlib import Path

from torch import nn

from amsc.data import Data, open_data

sys.path.append(str(Path(__file__).parents[1] / "evidence"))
from cifar10_jpeg import Halved, adapted

LIMIT = 10_000
"""Training images."""


def ten_thousand() -> Data:
    """Ten thousand training images, 1,016 for validation, 4,920 for the test."""
    whole = open_data(f"parquet:{_folder('AMSC_IMAGES')}", seed=0, batch_size=128, limit=LIMIT)
    halved: Data = Halved(whole)
    return halved


def resnet20() -> nn.Module:
    """With the given weights, after two epochs on all images."""
    return _adapted("resnet20", epochs=2)


def resnet56() -> nn.Module:
    """With the given weights, after an epoch on all images."""
    return _adapted("resnet56", epochs=1)


def _adapted(name: str, *, epochs: float) -> nn.Module:
    files = sorted(_folder("AMSC_WEIGHTS").glob(f"{name}-*.th"))
    if not files:
        raise FileNotFoundError(f"there is no {name}-*.th in {os.environ['AMSC_WEIGHTS']}")
    options = argparse.Namespace(
        model=name,
        weights=files[0],
        dense_epochs=epochs,
        dense_learning_rate=0.02,
        work=Path(os.environ.get("AMSC_DENSE", "dense")),
    )
    return adapted(options, open_data(f"parquet:{_folder('AMSC_IMAGES')}", seed=0, batch_size=128))


def _folder(variable: str) -> Path:
    if variable not in os.environ:
        raise KeyError(f"set {variable} to the folder (see the recipe)")
    return Path(os.environ[variable])
