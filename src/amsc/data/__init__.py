"""Data sets: small images kept on the device, the user's own DataLoaders, and both by name."""

from amsc.data.batch import Unlabelled, batch_size, inputs_alone, may_be_split, moved, some_examples, some_rows
from amsc.data.digits import read_digits
from amsc.data.folder import read_folder
from amsc.data.images import ImageData, ImageSplit
from amsc.data.imitated import Imitated, inputs_of
from amsc.data.loaders import LoaderData
from amsc.data.mistaken import data_line
from amsc.data.parquet import read_parquet
from amsc.data.protocol import Data, SpreadData
from amsc.data.source import open_data
from amsc.data.spread import batch_size_of, spread_batches

__all__ = [
    "Data",
    "ImageData",
    "ImageSplit",
    "Imitated",
    "LoaderData",
    "SpreadData",
    "Unlabelled",
    "batch_size",
    "batch_size_of",
    "data_line",
    "inputs_alone",
    "inputs_of",
    "may_be_split",
    "moved",
    "open_data",
    "read_digits",
    "read_folder",
    "read_parquet",
    "some_examples",
    "some_rows",
    "spread_batches",
]
