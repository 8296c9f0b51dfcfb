"""`python -m tests.faults.soak.clock SECONDS WORD ...`: `python -m solar.run WORD ...` while the clock jumps.

The clock of the process jumps by SECONDS (backwards if negative) at its hundredth reading. The times of files stay
those of the system: between the two lies the jump.
"""

import itertools
import sys
import time

from solar.run import main

CALM_READINGS = 100


def jumping(seconds: float) -> None:
    """Let the wall clock jump; the monotonic clock goes on, as it does when a machine's time is set."""
    count, really, really_ns = itertools.count(), time.time, time.time_ns
    time.time = lambda: really() + seconds * (next(count) >= CALM_READINGS)
    time.time_ns = lambda: really_ns() + int(seconds * 1e9) * (next(count) >= CALM_READINGS)


if __name__ == "__main__":
    jumping(float(sys.argv.pop(1)))
    main()
