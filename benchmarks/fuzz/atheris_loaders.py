"""Spoilt files for one loader, led by what code they reach: libFuzzer through atheris (pip install atheris).

    python benchmarks/fuzz/atheris_loaders.py LOADER [-max_total_time=1200] [-rss_limit_mb=2048] [CORPUS]

LOADER is one of tests/fuzz_targets.py; what follows are libFuzzer's own options. It ends at the first fault, and keeps
the file. Half of the files are changed by libFuzzer, half as tests/fuzz_targets.py does.
"""

import random
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

with atheris.instrument_imports(include=["amsc", "tomllib"]):
    from fuzz_targets import TARGETS, spoilt, survives


def main() -> None:
    target = TARGETS[sys.argv.pop(1)]
    good = target.good()

    def changed(content: bytes, most: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.5 or len(content) < 2:
            return spoilt(target, chance)[:most]
        return bytes(atheris.Mutate(content, most))

    def one(content: bytes) -> None:
        survives(target, content)

    atheris.Setup([sys.argv[0], f"-max_len={4 * len(good)}", *sys.argv[1:]], one, custom_mutator=changed)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
