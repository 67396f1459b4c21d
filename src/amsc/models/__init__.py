"""Networks by name: the built-in zoo, those of torchvision, timm and transformers, or the user's own function; and
their trained weights."""

from amsc.models.from_libraries import has_own_weights, library_of
from amsc.models.inputs import usual_inputs
from amsc.models.source import is_function, open_model
from amsc.models.weights import load_weights
from amsc.models.zoo import ZOO, ZooEntry

__all__ = [
    "ZOO",
    "ZooEntry",
    "has_own_weights",
    "is_function",
    "library_of",
    "load_weights",
    "open_model",
    "usual_inputs",
]
