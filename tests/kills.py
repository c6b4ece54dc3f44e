"""Programs that are killed before every file or folder that they move into place."""

import itertools
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PROGRAM = """
import os, signal, sys
from pathlib import Path
left = [int(sys.argv[1])]
for name in ("rename", "replace"):
    def move(self, target, move=getattr(Path, name)):
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return move(self, target)
    setattr(Path, name, move)
"""


def killed(lines: str, folder: Path) -> Iterator[int]:
    """Run lines of Python in a folder, killed at the first move, then at the second, and so on.

    Yields the number of moves that were made, after every kill and after the run that ends.
    """
    for moves in itertools.count():
        command = [sys.executable, "-c", PROGRAM + lines, str(moves)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        yield moves
        if done.returncode == 0:
            return
