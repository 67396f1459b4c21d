"""The command line: `amsc demo`, `inspect`, `compress`, `measure`, `resume`, `export`."""

from amsc.cli.main import main

__all__ = ["main"]
