"""The command line: `amsc demo`, `inspect`, `compress`, `measure`, `resume`, `export`."""

from amsc.cli.commands import main

__all__ = ["main"]
