"""`python -m amsc` is the command `amsc`."""

import sys

from amsc.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
