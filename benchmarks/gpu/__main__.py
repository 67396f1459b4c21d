"""See README.md beside this file."""

import time

START = time.monotonic()  # before torch is imported: that takes its part of the call's time

if __name__ == "__main__":
    from benchmarks.gpu.call import main

    raise SystemExit(main(start=START))
