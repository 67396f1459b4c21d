"""Many networks, methods, budgets, seeds and epochs by the same code, to one table: what `amsc bench` does."""

from amsc.bench.recipe import Cell, Method, Network, Recipe, read_recipe
from amsc.bench.running import bench
from amsc.bench.store import Outcome

__all__ = ["Cell", "Method", "Network", "Outcome", "Recipe", "bench", "read_recipe"]
