"""Runs a command, and prints its seconds, processor seconds and peak memory (bytes).

A small process in between, because Linux counts the peak of the process that starts a command as
the peak of the command.
"""

import resource
import subprocess
import sys
import time

started = time.perf_counter()
status = subprocess.call(sys.argv[1:], stdout=sys.stderr)
took = time.perf_counter() - started
used = resource.getrusage(resource.RUSAGE_CHILDREN)
unit = 1 if sys.platform == "darwin" else 2**10
print(took, used.ru_utime + used.ru_stime, used.ru_maxrss * unit)
sys.exit(status)
