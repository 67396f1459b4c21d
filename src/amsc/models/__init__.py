"""Networks by name: the built-in zoo, torchvision's, or the user's own function; and their trained weights."""

from amsc.models.source import is_function, open_model
from amsc.models.weights import load_weights
from amsc.models.zoo import ZOO, ZooEntry

__all__ = ["ZOO", "ZooEntry", "is_function", "load_weights", "open_model"]
