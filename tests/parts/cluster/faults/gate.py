"""Hold a step just before its shard is moved into place.

A step is held when a test has put <number of the shard>.hold into the folder GATE, until the test
writes <number>.order: "go" goes on; "half" cuts the written file in half and hangs; "hog" takes 10
GB and hangs. A shard is held once: the next attempt goes through.
"""

import os
import sys
import time
from pathlib import Path

gate = Path(os.environ["GATE"])
fsync = os.fsync


def held(handle):
    shard = str(int(sys.argv[sys.argv.index("--shard") + 1]))
    try:
        (gate / f"{shard}.hold").rename(gate / f"{shard}.used")
    except FileNotFoundError:
        return fsync(handle)
    (gate / f"{shard}.reached").write_text(str(os.getpid()))
    order = gate / f"{shard}.order"
    while not order.exists():
        time.sleep(0.1)
    match order.read_text():
        case "half":
            os.truncate(Path(f"/proc/self/fd/{handle}").readlink(), os.fstat(handle).st_size // 2)
            order.with_suffix(".done").touch()
            time.sleep(3600)
        case "hog":
            hoard = b"x" * 10 * 10**9
            time.sleep(3600 + len(hoard[:1]))
    return fsync(handle)


os.fsync = held
